// Package dynamicdeploy is the application master that ships with Mammoth: it takes an app's manifest and keeps so many
// healthy instances of it running. plan decides, driver performs.
package dynamicdeploy

import (
	"context"

	"github.com/mammoth-os/mammoth/dynamicdeploy/driver"
)

// Config is what an application master is run with; Config.Master is usually appmaster.FromEnvironment's.
type Config = driver.Config

// Run keeps an app running until ctx ends (nil; its instances go on), the app was removed (nil), or another attempt
// has taken over (appmaster.ErrSuperseded).
func Run(ctx context.Context, config Config) error { return driver.Run(ctx, config) }
