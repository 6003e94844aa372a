package registrytest_test

import (
	"testing"

	"github.com/mammoth-os/mammoth/companions/registry"
	"github.com/mammoth-os/mammoth/companions/registry/registrytest"
)

// The zone's registry, and what tests put in its place, are the same to everybody who publishes, looks up and follows.
func TestTheRegistryAndTheBoardPassTheSuite(t *testing.T) {
	t.Run("registry", func(t *testing.T) {
		registrytest.Run(t, func(epoch int64) registrytest.Registry { return registry.New(epoch << 32) })
	})
	t.Run("board", func(t *testing.T) {
		registrytest.Run(t, func(epoch int64) registrytest.Registry { return registrytest.NewBoard(epoch) })
	})
}
