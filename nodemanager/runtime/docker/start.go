package docker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-connections/nat"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/signal"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// Capabilities are the capabilities of a container's root user: what ordinary images need to change to their own user and to
// listen on a low port. Of Docker's defaults NET_RAW (forged packets), MKNOD (devices), AUDIT_WRITE, SYS_CHROOT and SETFCAP
// are missing.
func Capabilities() []string {
	return []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETPCAP", "SETUID"}
}

// createTimeout is how long the engine may take to create a container.
const createTimeout = 2 * time.Minute

// maxAttempts is how often a start is tried with other ports, or after it found a leftover container.
const maxAttempts = 8

// Start implements runtime.Runtime. It needs one create, one start and one inspect.
func (r *Runtime) Start(ctx context.Context, spec runtime.Spec) (runtime.Container, error) {
	if spec.Network == runtime.Host && !r.allowHostNetwork {
		return runtime.Container{}, fmt.Errorf("network: host is not allowed on this node; ask its operator: %w", errdefs.ErrPermissionDenied)
	}
	done, err := r.starts.acquire(ctx, spec.ID)
	if err != nil {
		return runtime.Container{}, err
	}
	defer done()
	known, err := r.engine.examine(ctx)
	if err != nil {
		return runtime.Container{}, err
	}
	if noted := r.ids.recorded(spec.ID); noted != "" {
		found, err := r.adopt(ctx, spec.ID, noted)
		var gone *retry
		if !errors.As(err, &gone) {
			return found, err
		}
	}
	for range maxAttempts {
		var found runtime.Container
		if found, err = r.tryStart(ctx, known, spec); err == nil {
			return found, nil
		}
		var again *retry
		if !errors.As(err, &again) {
			return runtime.Container{}, err
		}
	}
	return runtime.Container{}, fmt.Errorf("gave up after %d attempts: %w", maxAttempts, err)
}

// retry is an error after which a start is tried again.
type retry struct{ error }

func (r *retry) Unwrap() error { return r.error }

func (r *Runtime) tryStart(ctx context.Context, known *facts, spec runtime.Spec) (runtime.Container, error) {
	request, settle, err := r.request(ctx, known, spec)
	if err != nil {
		return runtime.Container{}, err
	}
	defer settle()
	// A create in progress is not cancelled, since the engine continues it and the result would be unknown.
	creating, cancel := context.WithTimeout(context.WithoutCancel(ctx), createTimeout)
	defer cancel()
	created, err := r.create(creating, request, spec)
	if err == nil && ctx.Err() != nil {
		return runtime.Container{}, errors.Join(r.engine.failure(ctx, ctx.Err()), r.undo(ctx, spec, created.ID))
	}
	switch {
	case err == nil:
	case errdefs.IsConflict(err):
		return r.adopt(ctx, spec.ID, name(spec.ID))
	case errdefs.IsNotFound(err) && r.images.forget(spec.Image):
		// The image was deleted since it was prepared.
		if err := r.Prepare(ctx, spec, func(runtime.Progress) {}); err != nil {
			r.ports.release(spec.ID)
			return runtime.Container{}, err
		}
		return runtime.Container{}, &retry{fmt.Errorf("image %q was deleted: %w", spec.Image, errdefs.ErrNotFound)}
	default:
		r.ports.release(spec.ID)
		return runtime.Container{}, errors.Join(r.engine.startFailure(ctx, spec, err), r.undoLost(ctx, spec.ID))
	}
	r.ids.record(spec.ID, created.ID)
	if request.host.Memory > 0 {
		r.ooms.expect(created.ID)
	}
	if err := r.engine.ContainerStart(ctx, created.ID, container.StartOptions{}); err != nil {
		r.ooms.drop(created.ID)
		failed := r.engine.startFailure(ctx, spec, err)
		undone := r.undo(ctx, spec, created.ID)
		if portTaken(err) && undone == nil {
			return runtime.Container{}, &retry{fmt.Errorf("no host port was free: %w", errdefs.ErrResourceExhausted)}
		}
		return runtime.Container{}, errors.Join(failed, undone)
	}
	inspected, err := r.engine.ContainerInspect(ctx, created.ID)
	if err != nil {
		r.ooms.drop(created.ID)
		return runtime.Container{}, errors.Join(r.engine.failure(ctx, err), r.undo(ctx, spec, created.ID))
	}
	return r.observe(ctx, inspected)
}

// create creates the container. An engine drops the image's arguments if the spec has a command, and adds them if the spec has an empty list of
// arguments. The spec means the opposite of both, so create sets the whole command then.
func (r *Runtime) create(ctx context.Context, request request, spec runtime.Spec) (container.CreateResponse, error) {
	if len(spec.Args) == 0 && (len(spec.Command) > 0) == (spec.Args == nil) {
		found, err := r.engine.ImageInspect(ctx, request.config.Image)
		switch {
		case err != nil:
			return container.CreateResponse{}, err
		case found.Config == nil:
		case spec.Args == nil:
			request.config.Cmd = found.Config.Cmd
		default:
			request.config.Entrypoint = found.Config.Entrypoint
		}
	}
	return r.engine.ContainerCreate(ctx, request.config, request.host, nil, nil, name(spec.ID))
}

func first(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return words[0]
}

// undo removes what a failed start has created. If the engine is gone, the leftover, which List shows, is replaced by the
// next Start.
func (r *Runtime) undo(ctx context.Context, spec runtime.Spec, created string) error {
	r.ports.release(spec.ID)
	err := r.discarded.discard(ctx, created)
	if err == nil {
		return r.ids.forget(spec.ID)
	}
	if errors.Is(err, errdefs.ErrUnavailable) {
		return nil
	}
	return err
}

// undoLost removes what a create without an answer may have created.
func (r *Runtime) undoLost(ctx context.Context, key id.Container) error {
	looking, cancel := cleanup(ctx)
	defer cancel()
	inspected, err := r.engine.ContainerInspect(looking, name(key))
	if err != nil || !r.ids.marked(inspected.Config.Labels) {
		return nil // there is none, or the engine is gone
	}
	if started, _ := times(inspected.State); !started.IsZero() {
		return nil
	}
	return r.discarded.discard(ctx, inspected.ID)
}

// adopt handles an existing container, given by the engine's id or by its name. It returns a retry if it does not exist any
// more.
func (r *Runtime) adopt(ctx context.Context, key id.Container, ref string) (runtime.Container, error) {
	inspected, err := r.engine.ContainerInspect(ctx, ref)
	if errdefs.IsNotFound(err) {
		return runtime.Container{}, &retry{fmt.Errorf("container %v was just removed: %w", key, errdefs.ErrUnavailable)}
	}
	if err != nil {
		return runtime.Container{}, r.engine.failure(ctx, err)
	}
	started, _ := times(inspected.State)
	if !r.ids.marked(inspected.Config.Labels) || !started.IsZero() && !r.ids.own(key, inspected.ID, inspected.Name) {
		return runtime.Container{}, fmt.Errorf("a container named %s exists and is not this node's: %w", name(key), errdefs.ErrAlreadyExists)
	}
	if !started.IsZero() {
		return r.observe(ctx, inspected)
	}
	if err := r.discarded.discard(ctx, inspected.ID); err != nil {
		return runtime.Container{}, err
	}
	return runtime.Container{}, &retry{fmt.Errorf("container %v was left behind: %w", key, errdefs.ErrUnavailable)}
}

// request is a container to be created by the engine.
type request struct {
	config *container.Config
	host   *container.HostConfig
}

// request converts a spec. settle must be called when the start has succeeded or failed.
func (r *Runtime) request(ctx context.Context, known *facts, spec runtime.Spec) (request, func(), error) {
	if spec.Network == runtime.Host && !r.ports.complete() {
		if _, err := r.List(ctx); err != nil { // it leases the ports of containers from before a restart
			return request{}, nil, err
		}
	}
	ports, bindings, settle, err := r.ports.bind(spec)
	if err != nil {
		return request{}, nil, err
	}
	stopSignal := ""
	if spec.StopSignal != "" {
		number, err := signal.Number(spec.StopSignal)
		if err != nil {
			settle()
			return request{}, nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		stopSignal = strconv.Itoa(number)
	}
	config := &container.Config{
		Image:      r.images.localName(spec.Image),
		Entrypoint: spec.Command,
		Cmd:        spec.Args,
		Env:        runtime.Environment(spec, ports),
		WorkingDir: spec.WorkingDir,
		User:       spec.User,
		Labels:     r.ids.labels(spec, ports),
		StopSignal: stopSignal,
		// The node probes; probes of the engine would only start processes in the container.
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
	}
	host := &container.HostConfig{
		// The driver "local" keeps all bytes; in JSON a character that is cut at 16KiB is lost.
		LogConfig:      container.LogConfig{Type: "local", Config: map[string]string{"max-size": "10m", "max-file": "2", "compress": "false"}},
		RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyDisabled},
		CapDrop:        []string{"ALL"},
		CapAdd:         Capabilities(),
		SecurityOpt:    []string{"no-new-privileges"},
		ReadonlyRootfs: spec.ReadOnlyRoot,
		PortBindings:   bindings,
		Resources:      resources(known, spec),
	}
	if spec.Network == runtime.Host {
		host.NetworkMode = "host"
	} else if len(bindings) > 0 {
		config.ExposedPorts = make(nat.PortSet, len(bindings))
		for port := range bindings {
			config.ExposedPorts[port] = struct{}{}
		}
	}
	if spec.DiskBytes > 0 && known.quota {
		host.StorageOpt = map[string]string{"size": strconv.FormatInt(spec.DiskBytes, 10)}
	}
	return request{config, host}, settle, nil
}

func resources(known *facts, spec runtime.Spec) container.Resources {
	var res container.Resources
	if spec.CPUMillis > 0 {
		res.CPUShares = max(spec.CPUMillis*1024/1000, 2)
		if spec.CPUMillis >= 10 && spec.CPUMillis <= int64(known.cpus)*1000 {
			res.NanoCPUs = spec.CPUMillis * 1e6
		} else {
			// The engine refuses NanoCPUs outside this range; the kernel accepts the same as a quota, but none below 1ms.
			res.CPUPeriod, res.CPUQuota = 100_000, max(spec.CPUMillis*100, 1000)
		}
	}
	if spec.MemoryBytes > 0 {
		// MemorySwap is the sum of memory and swap: no swap.
		res.Memory, res.MemorySwap = spec.MemoryBytes, spec.MemoryBytes
	}
	if spec.Pids > 0 {
		res.PidsLimit = &spec.Pids
	}
	return res
}
