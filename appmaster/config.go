package appmaster

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/id"
)

// The environment variables that the ResourceManager sets for an application master.
const (
	EnvResourceManager = "MAMMOTH_RESOURCEMANAGER"
	EnvAppID           = "MAMMOTH_APP_ID"
	EnvApp             = "MAMMOTH_APP"
	EnvAttempt         = "MAMMOTH_ATTEMPT"
	EnvToken           = "MAMMOTH_TOKEN"
)

// Config identifies the application master and its ResourceManager.
type Config struct {
	// ResourceManager is the addresses of the ResourceManagers, each host:port, with commas between: the first one that answers is used. Required.
	ResourceManager string
	// AppID is application_<zone-start-ms>_<seq>. Required.
	AppID string
	// App is the app's name. Required.
	App string
	// Attempt is the number of this run of the app's master, from 1. Required.
	Attempt int32
	// Token authenticates this attempt to the ResourceManager. It is sent to no one else.
	Token string
	// Dial opens connections to the ResourceManager and to nodes; nil is plain TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Log may be nil.
	Log *slog.Logger
}

// FromEnvironment reads the Config from the environment that the ResourceManager has set.
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

// Environment is what FromEnvironment reads.
func (c Config) Environment() []string {
	return []string{
		EnvResourceManager + "=" + c.ResourceManager, EnvAppID + "=" + c.AppID, EnvApp + "=" + c.App,
		EnvAttempt + "=" + strconv.Itoa(int(c.Attempt)), EnvToken + "=" + c.Token,
	}
}

// Validate returns one sentence about what is wrong.
func (c Config) Validate() error {
	if _, err := credentials.SplitAddresses(c.ResourceManager); err != nil {
		return fmt.Errorf("the ResourceManager's address (%s): %w", EnvResourceManager, err)
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
