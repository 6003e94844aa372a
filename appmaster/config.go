package appmaster

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
)

// The variables by which the ResourceManager tells an application master who it is.
const (
	EnvResourceManager = "MAMMOTH_RESOURCEMANAGER"
	EnvAppID           = "MAMMOTH_APP_ID"
	EnvApp             = "MAMMOTH_APP"
	EnvAttempt         = "MAMMOTH_ATTEMPT"
	EnvToken           = "MAMMOTH_TOKEN"
)

// Config says who the application master is and whom it talks to.
type Config struct {
	// ResourceManager is its host:port. Required.
	ResourceManager string
	// AppID is application_<cluster-start-ms>_<seq>. Required.
	AppID string
	// App is the app's name. Required.
	App string
	// Attempt counts the runs of this app's master, from 1. Required.
	Attempt int32
	// Token proves to the ResourceManager that this is the attempt it started. It goes to nobody else.
	Token string
	// Dial opens connections to the ResourceManager and to nodes; nil is plain TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Log may be nil.
	Log *slog.Logger
}

// FromEnvironment reads the Config that the ResourceManager put into the environment of an application master.
func FromEnvironment() (Config, error) {
	config := Config{
		ResourceManager: os.Getenv(EnvResourceManager),
		AppID:           os.Getenv(EnvAppID),
		App:             os.Getenv(EnvApp),
		Token:           os.Getenv(EnvToken),
	}
	attempt, err := strconv.ParseInt(os.Getenv(EnvAttempt), 10, 32)
	if err != nil {
		return Config{}, fmt.Errorf("%s is %q, not the number of an attempt; an application master is started by the ResourceManager: %w",
			EnvAttempt, os.Getenv(EnvAttempt), errdefs.ErrInvalidArgument)
	}
	config.Attempt = int32(attempt)
	if err := config.Validate(); err != nil {
		return Config{}, err
	}
	return config, nil
}

// Validate says in one sentence what is wrong with the Config.
func (c Config) Validate() error {
	if _, _, err := net.SplitHostPort(c.ResourceManager); err != nil {
		return fmt.Errorf("the ResourceManager's address %q (%s) is not host:port: %w", c.ResourceManager, EnvResourceManager, errdefs.ErrInvalidArgument)
	}
	if _, err := id.ParseApp(c.AppID); err != nil {
		return fmt.Errorf("%v (%s): %w", err, EnvAppID, errdefs.ErrInvalidArgument)
	}
	if c.App == "" {
		return fmt.Errorf("the app has no name (%s): %w", EnvApp, errdefs.ErrInvalidArgument)
	}
	if c.Attempt < 1 {
		return fmt.Errorf("attempts are counted from 1, this is %d (%s): %w", c.Attempt, EnvAttempt, errdefs.ErrInvalidArgument)
	}
	return nil
}
