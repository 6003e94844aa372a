package nginx

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/companions/balancer"
	"github.com/mammoth-os/mammoth/internal/spec"
)

// Config is the configuration of one nginx and its companion.
type Config struct {
	// The balancer's name in the zone; default "nginx".
	Name string `yaml:"name"`
	// Folder of this nginx's configuration, logs and sockets, for this nginx alone.
	Dir string `yaml:"dir"`
	// Front address of HTTP, host:port.
	Listen string `yaml:"listen"`
	// Front address of TLS, host:port; empty is none.
	TLS string `yaml:"tls"`
	// Folder of certificates, NAME.crt and NAME.key; empty is none.
	Certificates string `yaml:"certificates"`
	// The program; default "nginx" on the path.
	Program string `yaml:"program"`
	// An nginx that is installed and configured by others, to which the companion adds a file. Nil: the companion runs an
	// nginx of its own.
	Attach *Attach `yaml:"attach"`
	// Worker processes; default one a core, at most 8.
	Workers int `yaml:"workers"`
	// The shortest time between two reloads; default 1s.
	Interval time.Duration `yaml:"interval"`
	// How long the zone waits for this balancer when its connection is lost; default 30s.
	LostAfter time.Duration `yaml:"lostAfter"`
	// How long an old worker may finish its connections after a reload; default balancer.DefaultKeepOld. Not used with Attach: that
	// nginx has a setting of its own.
	KeepOld time.Duration `yaml:"keepOld"`
	// How many old workers may run; the oldest are ended first. Default 64, or 16 for each worker if that is more, and fewer if
	// they take more than half of the memory.
	MaxOld int `yaml:"maxOld"`
	// End nginx with the companion. Otherwise it keeps serving.
	StopOnExit bool `yaml:"stopOnExit"`
	// IsFinal is called when the companion of an attached nginx ends: whether the file is to be removed although StopOnExit
	// is not set. It may take seconds; nil means no.
	IsFinal func() bool `yaml:"-"`
	// Applied is called once the zone's routes are applied for the first time; may be nil.
	Applied func()       `yaml:"-"`
	Log     *slog.Logger `yaml:"-"`
}

// Attach is an nginx that is configured by others.
type Attach struct {
	// Its main configuration; default /etc/nginx/nginx.conf.
	Config string `yaml:"config"`
	// The companion's own file, which Config includes inside its http block; default /etc/nginx/conf.d/mammoth.conf.
	Include string `yaml:"include"`
	// Its pid file; default /run/nginx.pid.
	Pid string `yaml:"pid"`
}

// Validate sets defaults and returns what is wrong.
func (c *Config) Validate() error {
	defaultTo(&c.Name, "nginx")
	defaultTo(&c.Program, "nginx")
	defaultTo(&c.Interval, time.Second)
	defaultTo(&c.LostAfter, 30*time.Second)
	defaultTo(&c.KeepOld, balancer.DefaultKeepOld)
	defaultTo(&c.Workers, min(runtime.NumCPU(), 8))
	defaultTo(&c.MaxOld, max(64, 16*c.Workers))
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	paths := []string{c.Dir, c.Certificates}
	if c.Attach != nil {
		defaultTo(&c.Attach.Config, "/etc/nginx/nginx.conf")
		defaultTo(&c.Attach.Include, "/etc/nginx/conf.d/mammoth.conf")
		defaultTo(&c.Attach.Pid, "/run/nginx.pid")
		paths = append(paths, c.Attach.Config, c.Attach.Include, c.Attach.Pid)
	}
	for _, path := range paths {
		if err := spec.CheckPlainPath(filepath.Clean(path)); path != "" && err != nil {
			return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	switch {
	case c.Dir == "":
		return fmt.Errorf("the nginx companion needs a folder of its own: %w", errdefs.ErrInvalidArgument)
	case c.Workers < 1 || c.Interval < 0 || c.LostAfter < 0:
		return fmt.Errorf("workers must be at least 1, and the times not negative: %w", errdefs.ErrInvalidArgument)
	case c.KeepOld < time.Second || c.MaxOld < 1:
		return fmt.Errorf("keepOld must be at least 1s and maxOld at least 1: %w", errdefs.ErrInvalidArgument)
	case c.TLS != "" && c.Certificates == "":
		return fmt.Errorf("serving TLS on %s needs a folder of certificates: %w", c.TLS, errdefs.ErrInvalidArgument)
	}
	for _, address := range []string{c.Listen, c.TLS} {
		if err := balancer.CheckFrontAddress(address); err != nil && (address != "" || c.Listen == "") {
			return err
		}
	}
	return nil
}

func defaultTo[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
