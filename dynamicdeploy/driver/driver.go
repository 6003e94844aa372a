// Package driver is the shell around plan: one goroutine that feeds it with the events of the ResourceManager and the nodes, and
// performs its actions.
//
// Vocabulary: a Master is all of it except connections and goroutines; a control is what people have set for the rollout of one
// version; a preview is the answer to "what would this deployment replace?".
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
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// startTimeout is how long a start is repeated while a node does not answer.
const startTimeout = 10 * time.Second

// Config is the configuration of a driver.
type Config struct {
	// Master identifies the attempt and its ResourceManager.
	Master appmaster.Config
	// Log may be nil.
	Log *slog.Logger
}

// driver belongs to the goroutine of Run.
type driver struct {
	log    *slog.Logger
	client *appmaster.Client
	master *Master

	calls        sync.WaitGroup
	startResults chan startResult
	plans        chan planned
}

// planned is the answer to a Preview.
type planned struct {
	command  string
	response *masterv1.PlanResponse
	err      error
}

type startResult struct {
	container string
	status    *corev1.ContainerStatus
	err       error
}

// Run keeps an app running until ctx ends, the app was removed, or another attempt has taken over, which it returns as
// appmaster.ErrSuperseded. Instances keep running in any case.
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
	d := &driver{log: log, client: client, master: NewMaster(config.Master, client.Outbox, log), startResults: make(chan startResult), plans: make(chan planned)}
	defer d.calls.Wait()
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

// run is the loop: it decides, performs and waits for events.
func (d *driver) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := d.master.Decide(time.Now())
		for _, start := range d.master.Starts() {
			d.start(ctx, start)
		}
		for _, preview := range d.master.Previews() {
			d.plan(ctx, preview)
		}
		if d.master.Finished() {
			d.log.Info("every instance is gone, the app ends")
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
		case result := <-d.startResults:
			d.master.StartEnded(result.container, result.status, result.err, time.Now())
		case answer := <-d.plans:
			d.master.Planned(answer.command, answer.response, answer.err)
		case event, ok := <-d.client.Events():
			if err := d.handleAll(event, ok); err != nil {
				return err
			}
		}
	}
}

// handleAll handles an event and all that are queued behind it.
func (d *driver) handleAll(event appmaster.Event, ok bool) error {
	for {
		if !ok {
			return errors.New("the connection to the ResourceManager was closed")
		}
		if err := d.master.Handle(event, time.Now()); err != nil {
			return err
		}
		select {
		case event, ok = <-d.client.Events():
		default:
			return nil
		}
	}
}

// plan asks the ResourceManager a question and delivers the answer to plans.
func (d *driver) plan(ctx context.Context, preview Preview) {
	d.calls.Go(func() {
		response, err := d.client.Plan(ctx, preview.Request)
		select {
		case d.plans <- planned{preview.Command, response, err}:
		case <-ctx.Done():
		}
	})
}

// start sends a start and delivers the answer to startResults.
func (d *driver) start(ctx context.Context, start Start) {
	d.calls.Go(func() {
		name := start.Allocation.GetLease().GetContainerId()
		limit, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		policy := backoff.Policy{Min: 20 * time.Millisecond, Max: time.Second}
		var status *corev1.ContainerStatus
		var err error
		for failures := 1; ; failures++ {
			status, err = d.client.Start(limit, start.Allocation, start.Spec)
			if !mayHaveStarted(err) || backoff.Sleep(limit, policy.After(failures)) != nil {
				break
			}
		}
		select {
		case d.startResults <- startResult{container: name, status: status, err: err}:
		case <-ctx.Done():
		}
	})
}

// mayHaveStarted reports whether the node may have run the container although the start failed.
func mayHaveStarted(err error) bool {
	return errors.Is(err, errdefs.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, context.Canceled) // of a call whose connection was closed because the node's address changed
}

// startError classifies a refused start. Only an error about the spec counts against the version: after any other error
// another version might fail the same way.
func startError(err error) plan.StartError {
	switch {
	case mayHaveStarted(err):
		return plan.StartUnanswered
	case errors.Is(err, errdefs.ErrInvalidArgument), errors.Is(err, errdefs.ErrNotImplemented), errors.Is(err, errdefs.ErrPermissionDenied):
		return plan.StartInvalid
	}
	return plan.StartRefused
}
