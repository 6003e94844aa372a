package docker

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/id"
)

// Remove implements runtime.Runtime. The output is copied from the engine first; a partial copy is replaced.
func (r *Runtime) Remove(ctx context.Context, key id.Container) error {
	inspected, err := r.engine.ContainerInspect(ctx, r.ids.handle(key))
	if errdefs.IsNotFound(err) {
		return r.ids.forget(key)
	}
	if err != nil {
		return r.engine.failure(ctx, err)
	}
	if inspected.State.Running {
		return fmt.Errorf("container %v is running: %w", key, errdefs.ErrFailedPrecondition)
	}
	// An engine that stopped during a removal has a dead container afterwards, whose output was copied before and does not
	// exist any more.
	if dead := inspected.State.Dead || inspected.State.Status == container.StateRemoving; !dead {
		if err := r.keepOutput(ctx, key); err != nil {
			return err
		}
	}
	if err := r.engine.removeEnded(ctx, inspected.ID); err != nil {
		return err
	}
	r.unwatch(key, inspected.ID)
	r.ooms.forget(inspected.ID)
	r.signals.forget(inspected.ID)
	return errors.Join(r.quotas.forget(key), r.ids.forget(key))
}

// keepOutput copies the output of a container that is to be removed. It fails if a later attempt may keep more of it.
func (r *Runtime) keepOutput(ctx context.Context, key id.Container) error {
	err := r.output.keep(ctx, key)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errdefs.ErrDataLoss), errors.Is(err, unix.ENOSPC):
		// No later attempt would keep more, and the container holds the space that is missing.
		r.logger.Warn("some output of an ended container is lost", "container", key.String(), "error", err)
		return nil
	}
	return fmt.Errorf("copy the logs of container %v: %w", key, err)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
