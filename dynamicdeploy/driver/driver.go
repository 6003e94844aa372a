// Package driver is the shell around plan: one goroutine that feeds it with what the ResourceManager and the nodes say,
// and performs what it decides.
package driver

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/appmaster"
	"github.com/mammoth-os/mammoth/dynamicdeploy/plan"
	"github.com/mammoth-os/mammoth/internal/backoff"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// persistence is how long a start is tried on a node that does not answer.
const persistence = 10 * time.Second

// Config is what the driver of an app is run with.
type Config struct {
	// Master says which attempt this is and whom to talk to.
	Master appmaster.Config
	// Log may be nil.
	Log *slog.Logger
}

// driver belongs to the goroutine of Run.
type driver struct {
	log    *slog.Logger
	client *appmaster.Client
	master *Master

	starts  sync.WaitGroup
	started chan startResult
}

type startResult struct {
	container string
	status    *corev1.ContainerStatus
	err       error
}

// Run keeps an app running until ctx ends, the app was removed, or another attempt has taken over, which it reports as
// appmaster.ErrSuperseded. Instances go on running in any case.
func Run(ctx context.Context, config Config) error {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Master.Log == nil {
		config.Master.Log = config.Log
	}
	ctx, cancel := context.WithCancel(ctx)
	client := appmaster.New(config.Master)
	log := config.Log.With("app", config.Master.App, "attempt", config.Master.Attempt)
	d := &driver{log: log, client: client, master: NewMaster(config.Master, client.Outbox, log), started: make(chan startResult)}
	defer d.starts.Wait()
	defer d.client.Close()
	defer cancel()

	registration, err := d.client.Register(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	d.log.Info("registered", "containers", len(registration.GetContainers()))
	d.master.TakeOver(registration, time.Now())
	return d.run(ctx)
}

// run is the loop: hear everything that is to be heard, decide, perform, wait.
func (d *driver) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := d.master.Decide(time.Now())
		for _, start := range d.master.Starts() {
			d.start(ctx, start)
		}
		if d.master.Finished() {
			d.log.Info("every instance is gone, the app can be forgotten")
			if err := d.client.Finish(ctx, "removed"); err != nil && ctx.Err() == nil {
				return err
			}
			return nil
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case result := <-d.started:
			d.master.StartEnded(result.container, result.status, result.err, time.Now())
		case event, ok := <-d.client.Events():
			if err := d.hear(event, ok); err != nil {
				return err
			}
		}
	}
}

// hear takes an event and all that wait behind it.
func (d *driver) hear(event appmaster.Event, ok bool) error {
	for {
		if !ok {
			return errors.New("the connection to the ResourceManager was closed")
		}
		if err := d.master.Hear(event, time.Now()); err != nil {
			return err
		}
		select {
		case event, ok = <-d.client.Events():
		default:
			return nil
		}
	}
}

// start sends a start and comes back with the answer by d.started.
func (d *driver) start(ctx context.Context, start Start) {
	d.starts.Go(func() {
		name := start.Allocation.GetLease().GetContainerId()
		limit, cancel := context.WithTimeout(ctx, persistence)
		defer cancel()
		policy := backoff.Policy{Min: 20 * time.Millisecond, Max: time.Second}
		var status *corev1.ContainerStatus
		var err error
		for failures := 1; ; failures++ {
			status, err = d.client.Start(limit, start.Allocation, start.Spec)
			if !unanswered(err) || backoff.Sleep(limit, policy.After(failures)) != nil {
				break
			}
		}
		select {
		case d.started <- startResult{container: name, status: status, err: err}:
		case <-ctx.Done():
		}
	})
}

// unanswered reports whether a start may have been heeded for all that is known.
func unanswered(err error) bool {
	return errors.Is(err, errdefs.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, context.Canceled) // which a call says whose connection was closed because the node has moved
}

// refusal says what a start that was not accepted means. A node that refuses what it was asked to run has seen the version;
// of every other error nobody knows that the next version would fare better.
func refusal(err error) plan.Refusal {
	switch {
	case unanswered(err):
		return plan.Unanswered
	case errors.Is(err, errdefs.ErrInvalidArgument), errors.Is(err, errdefs.ErrNotImplemented), errors.Is(err, errdefs.ErrPermissionDenied):
		return plan.RefusedSpec
	}
	return plan.Refused
}
