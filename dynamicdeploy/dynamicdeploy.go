// Package dynamicdeploy is the application master for services: it keeps the desired number of healthy instances of an app
// running. plan decides and driver performs.
// This package is only the way in: the driver owns everything.
package dynamicdeploy

import (
	"context"

	"github.com/mammoth-os/mammoth/dynamicdeploy/driver"
)

// Config is the configuration of an application master; Config.Master usually comes from appmaster.FromEnvironment.
type Config = driver.Config

// Run keeps an app running. It returns nil when ctx ends or the app was removed, and appmaster.ErrSuperseded when another
// attempt has taken over. Instances keep running.
func Run(ctx context.Context, config Config) error { return driver.Run(ctx, config) }
