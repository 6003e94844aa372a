package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	dockernetwork "github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/nodemanager/disk"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// engine owns the connection to a Docker engine and what is known of the engine while it runs. Its methods turn the errors of
// the client into those of a runtime.
type engine struct {
	*client.Client
	socket string
	// zone and node name the probe of the storage driver.
	zone, node string
	logger     *slog.Logger

	// examining is held while the engine is examined.
	examining sync.Mutex

	mu sync.Mutex
	// found is nil until the engine was examined, and again after it was away.
	found *facts
}

func newEngine(config Config) (*engine, error) {
	c, err := connect(config.Socket)
	if err != nil {
		return nil, fmt.Errorf("engine at %s: %w", config.Socket, err)
	}
	return &engine{Client: c, socket: config.Socket, zone: config.Zone, node: config.Node, logger: config.Logger}, nil
}

// connect makes a client with a connection of its own for each request. An engine that goes down takes no new connections, yet goes on
// to answer on those that it has, and what it starts then has a file system that no later engine can remove.
func connect(socket string) (*client.Client, error) {
	return client.NewClientWithOpts(
		client.WithHTTPClient(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: client.CheckRedirect}),
		client.WithHost("unix://"+socket), client.WithAPIVersionNegotiation(),
	)
}

// facts are what does not change while the engine runs.
type facts struct {
	version, dataRoot string
	cgroupVersion     int
	cpus              int
	// quota is true if the storage driver enforces disk quotas; pool is the file system that does so, if it may stop doing
	// so.
	quota bool
	pool  *disk.Btrfs
}

// known is what is known of the engine at present; nil if it was not examined, or was away.
func (e *engine) known() *facts {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.found
}

// examine examines the engine once, and again after it was away.
func (e *engine) examine(ctx context.Context) (*facts, error) {
	// One at a time: two would remove each other's probe and conclude that the driver has no quotas.
	e.examining.Lock()
	defer e.examining.Unlock()
	if known := e.known(); known != nil {
		return known, nil
	}
	info, err := e.Info(ctx)
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	f := &facts{version: info.ServerVersion, dataRoot: info.DockerRootDir, cgroupVersion: 1, cpus: info.NCPU}
	if info.CgroupVersion == "2" {
		f.cgroupVersion = 2
	}
	if disk.DriverMayQuota(info.Driver, info.DriverStatus) {
		if f.quota, err = e.tryQuota(ctx); err != nil {
			return nil, err
		}
	}
	if f.quota && info.Driver == "btrfs" {
		if f.pool, err = disk.OpenBtrfs(f.dataRoot); err != nil {
			e.logger.Warn("cannot examine whether the storage driver enforces disk quotas", "error", err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.found = f
	return f, nil
}

// tryQuota examines whether the storage driver accepts a size, with an empty container that is never started.
func (e *engine) tryQuota(ctx context.Context) (bool, error) {
	const nothing = "\x00" // an archive's end is two blocks of zeros
	name := localPrefix + "quota-probe:" + strings.ToLower(e.node)
	source := image.ImportSource{Source: strings.NewReader(strings.Repeat(nothing, 1024)), SourceName: "-"}
	stream, err := e.ImageImport(ctx, source, name, image.ImportOptions{})
	if err != nil {
		return false, e.failure(ctx, err)
	}
	err = readProgress(stream, func(string, int64) {})
	if err = errors.Join(err, stream.Close()); err != nil {
		return false, e.failure(ctx, err)
	}
	defer func() {
		_, _ = e.ImageRemove(context.WithoutCancel(ctx), name, image.RemoveOptions{})
	}()
	created, err := e.ContainerCreate(ctx,
		&container.Config{Image: name, Cmd: []string{"/none"}, Labels: map[string]string{labelZone: e.zone}},
		&container.HostConfig{StorageOpt: map[string]string{"size": "16777216"}}, nil, nil, "")
	if err != nil {
		err = e.failure(ctx, err)
		if errors.Is(err, errdefs.ErrUnavailable) || errors.Is(err, errdefs.ErrNotFound) || ctx.Err() != nil {
			return false, err
		}
		e.logger.Info("the storage driver does not enforce disk quotas; disk usage is measured", "error", err)
		return false, nil
	}
	return true, e.removeByForce(ctx, created.ID)
}

// failure classifies an error of the engine's client, as one sentence.
func (e *engine) failure(ctx context.Context, err error) error {
	var network net.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("engine: %w", context.Cause(ctx))
	case client.IsErrConnectionFailed(err), errors.As(err, &network),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errdefs.IsUnavailable(err):
		e.mu.Lock()
		e.found = nil // it may return as another version
		e.mu.Unlock()
		return fmt.Errorf("the Docker engine at %s does not answer: %w", e.socket, errdefs.ErrUnavailable)
	}
	text := sentence(err)
	if goingDown(text) {
		return fmt.Errorf("the Docker engine at %s is going down: %w", e.socket, errdefs.ErrUnavailable)
	}
	for _, class := range []error{
		errdefs.ErrNotFound, errdefs.ErrConflict, errdefs.ErrInvalidArgument, errdefs.ErrPermissionDenied, errdefs.ErrNotImplemented,
	} {
		if errors.Is(err, class) {
			return fmt.Errorf("%s: %w", text, class)
		}
	}
	if exhausted(text) {
		return fmt.Errorf("%s: %w", text, errdefs.ErrResourceExhausted)
	}
	return fmt.Errorf("engine: %s: %w", text, errdefs.ErrInternal)
}

// startFailure is one sentence about why a container could not be started.
func (e *engine) startFailure(ctx context.Context, spec runtime.Spec, err error) error {
	text, program := sentence(err), first(spec.Command)
	if why, ok := noWorkingDir(text); ok {
		if spec.WorkingDir == "" {
			return fmt.Errorf("the image's WORKDIR %s: %w", why, errdefs.ErrInvalidArgument)
		}
		return fmt.Errorf("workingDir is %q, but it %s: %w", spec.WorkingDir, why, errdefs.ErrInvalidArgument)
	}
	if why, ok := notRunnable(text); ok && (strings.Contains(text, "exec:") || strings.Contains(text, "runtime create failed") || strings.Contains(text, badFormat)) {
		if program == "" {
			program = "the image's command"
		}
		return fmt.Errorf("cannot run %s: %s: %w", program, why.Reason, errdefs.ErrInvalidArgument)
	}
	return e.failure(ctx, err)
}

// removeByForce ends and removes a container, also when ctx has ended.
func (e *engine) removeByForce(ctx context.Context, runtimeID string) error {
	ctx, cancel := cleanup(ctx)
	defer cancel()
	err := e.ContainerRemove(ctx, runtimeID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if errdefs.IsNotFound(err) {
		return nil
	}
	return e.failure(ctx, err)
}

const (
	// removalWithin is how long a removal in progress is waited for, removalLook the pause between two requests.
	removalWithin = 30 * time.Second
	removalLook   = 50 * time.Millisecond
)

// removeEnded has the engine remove a container that has ended. The engine refuses if a removal is in progress already, for example one that a
// NodeManager has requested before it was restarted. That removal is waited for.
func (e *engine) removeEnded(ctx context.Context, runtimeID string) error {
	limit, cancel := context.WithTimeout(ctx, removalWithin)
	defer cancel()
	for {
		err := e.ContainerRemove(ctx, runtimeID, container.RemoveOptions{RemoveVolumes: true})
		switch {
		case err == nil, errdefs.IsNotFound(err):
			return nil
		case !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "is already in progress"):
			return e.failure(ctx, err)
		case backoff.Sleep(limit, removalLook) != nil:
			return e.failure(ctx, err)
		}
	}
}

// recallTimeout is how long the engine may take to return earlier events.
const recallTimeout = 5 * time.Second

// queryEvents passes the engine's events of one kind of a container between two times to next, until next returns false.
func (e *engine) queryEvents(
	ctx context.Context, runtimeID string, kind events.Action, since, until time.Time, next func(events.Message) bool,
) error {
	ctx, cancel := context.WithTimeout(ctx, recallTimeout)
	defer cancel()
	messages, failed := e.Events(ctx, events.ListOptions{
		Since: stamp(since), Until: stamp(until),
		Filters: filters.NewArgs(
			filters.Arg("type", string(events.ContainerEventType)), filters.Arg("event", string(kind)),
			filters.Arg("container", runtimeID),
		),
	})
	for {
		select {
		case message := <-messages:
			if !next(message) {
				return nil
			}
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return e.failure(ctx, err)
		}
	}
}

// defaultBridge is the network of containers.
const defaultBridge = "bridge"

// gateway is this host's address on the bridge of the containers. It fails with ErrUnavailable while the engine does not
// answer.
func (e *engine) gateway(ctx context.Context) (string, error) {
	found, err := e.NetworkInspect(ctx, defaultBridge, dockernetwork.InspectOptions{})
	if err != nil {
		return "", e.failure(ctx, err)
	}
	return gatewayOf(found, func(name string) ([]net.Addr, error) {
		bridge, err := net.InterfaceByName(name)
		if err != nil {
			return nil, err
		}
		return bridge.Addrs()
	})
}

// gatewayOf is the gateway of a network. An engine that has just created its default network does not report it before its
// next start: then it is the address of the network's bridge.
func gatewayOf(found dockernetwork.Inspect, addresses func(bridge string) ([]net.Addr, error)) (string, error) {
	for _, pool := range found.IPAM.Config {
		if pool.Gateway != "" {
			return pool.Gateway, nil
		}
	}
	bridge := found.Options["com.docker.network.bridge.name"]
	has, err := addresses(bridge)
	if err != nil {
		return "", fmt.Errorf("look at the bridge %q of the engine's network %s: %w", bridge, found.Name, err)
	}
	for _, address := range has {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil && prefix.Addr().Is4() {
			return prefix.Addr().String(), nil
		}
	}
	return "", fmt.Errorf("the engine's network %s has no gateway, and its bridge %q no address: %w", found.Name, bridge, errdefs.ErrFailedPrecondition)
}

// cleanup is a context for what must be done even after the caller's has ended.
func cleanup(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
}

// stamp formats a time for the engine.
func stamp(at time.Time) string { return fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond()) }
