package scheduler

import (
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/resource"
)

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

func refused(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrFailedPrecondition)...)
}

// amount writes a quantity with its resource: "64MiB of memory", "2 cpu".
func amount(schema resource.Schema, place int, n int64) string {
	switch place {
	case resource.Memory, resource.Disk:
		return schema.Format(place, n) + " of " + schema.Name(place)
	}
	return schema.Format(place, n) + " " + schema.Name(place)
}
