package docker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// Watch implements runtime.Runtime with the engine's stream of events.
func (r *Runtime) Watch(ctx context.Context) (<-chan runtime.Event, error) {
	// The client negotiates the API version at its first request, under a lock. Its event stream alone reads the version
	// without the lock, so the version must be negotiated before.
	if _, err := r.engine.examine(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	filter := r.ids.filter()
	filter.Add("type", string(events.ContainerEventType))
	for _, action := range []events.Action{
		events.ActionCreate, events.ActionStart, events.ActionDie, events.ActionOOM, events.ActionKill, events.ActionPause, events.ActionUpdate,
		events.ActionDestroy,
	} {
		filter.Add("event", string(action))
	}
	// The engine answers before it has subscribed. It keeps events in between and sends them because of "since".
	began := time.Now()
	messages, failed := r.engine.Events(ctx, events.ListOptions{Since: stamp(began), Filters: filter})
	select {
	case err := <-failed:
		err = r.engine.failure(ctx, err)
		cancel()
		return nil, err
	default:
	}
	out := make(chan runtime.Event, 16)
	go func() {
		defer close(out)
		defer cancel()
		for {
			select {
			case <-ctx.Done():
				return
			case err := <-failed:
				_ = r.engine.failure(ctx, err) // drops what is known of the engine
				return
			case message := <-messages:
				event, ok := r.event(ctx, message, began)
				if !ok {
					continue
				}
				select {
				case out <- event:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out, nil
}

// event converts a message of a stream that began at began. Some messages are not events of this node.
func (r *Runtime) event(ctx context.Context, message events.Message, began time.Time) (runtime.Event, bool) {
	runtimeID := message.Actor.ID
	if message.Action == events.ActionDestroy { // its end is not needed any more
		r.ooms.ended(runtimeID)
		r.ooms.forget(runtimeID)
		r.signals.forget(runtimeID)
		return runtime.Event{}, false
	}
	key, err := id.ParseContainer(message.Actor.Attributes[labelContainer])
	if err != nil || !r.ids.own(key, runtimeID, message.Actor.Attributes["name"]) {
		return runtime.Event{}, false
	}
	event := runtime.Event{ID: key, At: time.Unix(0, message.TimeNano)}
	switch message.Action {
	case events.ActionCreate:
		event.Kind = runtime.Created
		return event, true
	case events.ActionStart:
		event.Kind = runtime.Started
		r.signals.forget(runtimeID)
		r.ooms.started(runtimeID)
		return event, true
	case events.ActionOOM:
		r.ooms.reported(runtimeID)
		return runtime.Event{}, false
	case events.ActionKill:
		r.signals.sent(runtimeID, sentBy(message))
		return runtime.Event{}, false
	case events.ActionPause, events.ActionUpdate: // the node itself does neither of them
		r.restorer.changed(ctx, key, runtimeID)
		return runtime.Event{}, false
	case events.ActionDie:
	default:
		return runtime.Event{}, false
	}
	event.Kind = runtime.Ended
	code, err := strconv.Atoi(message.Actor.Attributes["exitCode"])
	if err != nil {
		code = -1
	}
	event.Exit = &runtime.Exit{Code: code}
	if r.discarded.take(runtimeID) {
		return runtime.Event{}, false
	}
	life := runPeriod{runtimeID: runtimeID, ended: event.At}
	missed := began.After(life.earliest())
	if code == 0 && !r.signals.needsStopSignal(runtimeID) { // no inspect is needed
		r.unwatch(key, runtimeID)
		event.Exit = r.exit(key, runtimeID, &container.State{}, r.signals.endedOf(ctx, life, missed))
		return event, true
	}
	inspected, err := r.engine.ContainerInspect(ctx, runtimeID)
	if err == nil {
		if started, _ := times(inspected.State); started.IsZero() {
			return runtime.Event{}, false // the start failed, and its caller has the error
		}
	}
	r.unwatch(key, runtimeID)
	switch {
	case err == nil:
		life.started, _ = times(inspected.State)
		life.stopSignal = inspected.Config.StopSignal
		event.Exit = r.exit(key, runtimeID, inspected.State, r.signals.endedOf(ctx, life, missed))
		event.Exit.Code = code // the state may be older than this end
		r.ooms.ask(ctx, event.Exit, life)
	case errors.Is(r.engine.failure(ctx, err), errdefs.ErrUnavailable):
		event.Exit.EngineDown = true
	case errdefs.IsNotFound(err): // removed by force
		event.Exit = r.exit(key, runtimeID, &container.State{ExitCode: code}, r.signals.endedOf(ctx, life, missed))
	}
	return event, true
}

// Stop implements runtime.Runtime.
func (r *Runtime) Stop(ctx context.Context, key id.Container, grace time.Duration) error {
	// The wait begins before the signal, so that no end is missed.
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	ended, failed := r.engine.ContainerWait(waiting, r.ids.handle(key), container.WaitConditionNotRunning)
	kills := grace <= 0
	if kills {
		if gone, err := r.kill(ctx, key, "SIGKILL"); gone || err != nil {
			return err
		}
	} else if gone, err := r.kill(ctx, key, r.stopSignal(ctx, key)); gone || errors.Is(err, errdefs.ErrUnavailable) {
		return err
	} else if err != nil {
		// An engine refuses every signal but SIGKILL to a container whose own stop signal it does not know.
		r.logger.Warn("cannot send the stop signal to a container; it is killed after its grace", "container", key.String(), "error", err)
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	kill := timer.C
	if kills {
		kill = nil
	}
	for {
		select {
		case <-ended:
			return nil
		case err := <-failed:
			if errdefs.IsNotFound(err) {
				return nil
			}
			return r.engine.failure(ctx, err)
		case <-ctx.Done():
			return fmt.Errorf("stop container %v: %w", key, context.Cause(ctx))
		case <-kill:
			kill = nil
			if gone, err := r.kill(ctx, key, "SIGKILL"); gone || err != nil {
				return err
			}
		}
	}
}

// stopSignal is the container's stop signal: its spec's, else its image's.
func (r *Runtime) stopSignal(ctx context.Context, key id.Container) string {
	inspected, err := r.engine.ContainerInspect(ctx, r.ids.handle(key))
	if err != nil || inspected.Config == nil || inspected.Config.StopSignal == "" {
		return "SIGTERM"
	}
	return inspected.Config.StopSignal
}

// kill sends a signal to the container's first process. gone is true if there was none.
func (r *Runtime) kill(ctx context.Context, key id.Container, signal string) (gone bool, err error) {
	err = r.engine.ContainerKill(ctx, r.ids.handle(key), signal)
	if errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
		return true, nil
	}
	return false, r.engine.failure(ctx, err)
}
