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
func amount(schema resource.Schema, dim int, n int64) string {
	switch dim {
	case resource.Memory, resource.Disk:
		return schema.Format(dim, n) + " of " + schema.Name(dim)
	}
	return schema.Format(dim, n) + " " + schema.Name(dim)
}
