package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/mammoth-os/mammoth/appmaster"
	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// runCommands run programs of this machine as application masters.
type runCommands struct {
	client
	in io.Reader
}

func (c *runCommands) appRunCommand() *cobra.Command {
	request := &apiv1.StartMasterRequest{}
	cmd := &cobra.Command{
		Use:   "run NAME -- COMMAND [ARGUMENT...]",
		Short: "Run a program as the application master of an app",
		Long: `Run starts a program on this machine as the application master of an app: it asks the
zone for containers, starts programs in them, and ends the app when its work is done.
The app is made if there is none of that name. The program finds the zone in its
environment, in the variables MAMMOTH_RESOURCEMANAGER, MAMMOTH_APP, MAMMOTH_APP_ID,
MAMMOTH_ATTEMPT and MAMMOTH_TOKEN; the Go package appmaster reads them.

When the work is done, its outcome is printed; the command fails unless it has succeeded.
If the program ends before, also by ctrl-C, its containers run on, and the next run of
the app takes them over.`,
		Example: "  mammoth app run numbers --queue batch -- ./batch -containers 3 -- /bin/echo hello",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 || cmd.ArgsLenAtDash() != 1 {
				return usagef("name the app and, after --, the program, as in `mammoth app run numbers -- ./batch`")
			}
			return nil
		},
		ValidArgsFunction: firstArgument(c.completeApps),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Name = args[0]
			return c.runMaster(cmd.Context(), request, args[1:])
		},
	}
	cmd.Flags().StringVar(&request.Queue, "queue", "", "the queue of an app that is made")
	cmd.Flags().Int32Var(&request.Priority, "priority", 0, "the priority of an app that is made: higher first in its queue")
	must(cmd.RegisterFlagCompletionFunc("queue", c.completeQueues))
	return cmd
}

// runMaster runs a program as an app's master. It fails unless the work has succeeded.
func (c *runCommands) runMaster(ctx context.Context, request *apiv1.StartMasterRequest, command []string) error {
	if _, err := exec.LookPath(command[0]); err != nil {
		var cause *exec.Error
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return fmt.Errorf("cannot run %s: %w", command[0], err)
	}
	program := exec.CommandContext(ctx, command[0], command[1:]...)
	var started *apiv1.StartMasterResponse
	err := c.with(ctx, func(z *zone) (err error) {
		started, err = z.apps.StartMaster(ctx, request)
		return err
	})
	if err != nil {
		return err
	}
	server := started.GetResourceManager()
	if server == "" {
		server = c.dialer.server
	}
	config := appmaster.Config{
		ResourceManager: server, App: request.GetName(), AppID: started.GetAppId(), Attempt: started.GetAttempt(), Token: started.GetToken(),
	}
	program.Env = append(os.Environ(), config.Environment()...)
	program.Stdin, program.Stdout, program.Stderr = c.in, c.out, c.err
	program.Cancel = func() error { return program.Process.Signal(syscall.SIGTERM) }
	return c.masterEnded(ctx, config, program.Run())
}

// leaveTimeout is how long the end of a program is told.
const leaveTimeout = 5 * time.Second

// masterEnded says what has become of an app whose program has ended, and tells the zone of the end if the work goes on.
func (c *runCommands) masterEnded(ctx context.Context, config appmaster.Config, err error) error {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	app, known := c.outcome(limit, config.App)
	switch {
	case errdefs.IsNotFound(wire.Error(known)), app.GetState() == apiv1.App_REMOVING, app.GetState() == apiv1.App_REMOVED:
		return fmt.Errorf("%s was removed", config.App)
	case app.GetOutcome() == apiv1.App_SUCCEEDED:
		_, err := fmt.Fprintln(c.out, because(config.App+" has succeeded", app.GetReason()))
		return err
	case app.GetOutcome() == apiv1.App_FAILED:
		return errors.New(because(config.App+" has failed", app.GetReason()))
	case app.GetOutcome() != apiv1.App_OUTCOME_NONE:
		return errors.New(because(config.App+" was stopped", app.GetReason()))
	}
	if ctx.Err() == nil && known == nil && app.GetMaster().GetAttempt() != config.Attempt {
		return fmt.Errorf("another run of %s has taken over", config.App)
	}
	how := "its program has ended"
	if err != nil {
		how = err.Error()
	}
	done := "is not done"
	if left := appmaster.Leave(limit, config, how); left != nil {
		done = fmt.Sprintf("may not be done, and the zone could not be told (%s)", wire.Sentence(left))
	}
	goesOn := fmt.Sprintf("what it has started runs on until another run takes over, or `mammoth app stop %s`", config.App)
	if ctx.Err() != nil {
		fmt.Fprintf(c.err, "%s: %s\n", config.App, goesOn)
		return context.Cause(ctx)
	}
	return fmt.Errorf("the program of %s has ended (%s), and its work %s; %s", config.App, how, done, goesOn)
}

// outcome waits until an app whose work has ended has stopped, so that it can be run again, and returns it; at once if the work goes on.
func (c *runCommands) outcome(ctx context.Context, name string) (app *apiv1.App, err error) {
	err = c.with(ctx, func(z *zone) error {
		for {
			now, err := z.apps.GetApp(ctx, &apiv1.GetAppRequest{Name: name})
			if err != nil {
				return err
			}
			app = now
			if app.GetOutcome() == apiv1.App_OUTCOME_NONE || app.GetState() == apiv1.App_STOPPED || backoff.Sleep(ctx, 50*time.Millisecond) != nil {
				return nil
			}
		}
	})
	return app, err
}
