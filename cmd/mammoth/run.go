package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/mammoth-os/mammoth/appmaster"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

func (c *cli) appRunCommand() *cobra.Command {
	request := &apiv1.StartMasterRequest{}
	cmd := &cobra.Command{
		Use:   "run NAME -- COMMAND [ARGUMENT...]",
		Short: "Run a program as the application master of an app",
		Long: `Run starts a program on this machine as the application master of an app: it asks the
zone for containers, starts programs in them, and ends the app when its work is done.
The app is made if there is none of that name. The program finds the zone in its
environment, in the variables MAMMOTH_RESOURCEMANAGER, MAMMOTH_APP, MAMMOTH_APP_ID,
MAMMOTH_ATTEMPT and MAMMOTH_TOKEN; the Go package appmaster reads them.

If the program ends before its work is done, its containers run on, and the next run of
the app takes them over.`,
		Example: "  mammoth app run numbers --queue batch -- ./framework -containers 3 -- /bin/echo hello",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 || cmd.ArgsLenAtDash() != 1 {
				return usagef("name the app and, after --, the program, as in `mammoth app run numbers -- ./framework`")
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

// runMaster runs a program as an app's master. Its exit code is the command's.
func (c *cli) runMaster(ctx context.Context, request *apiv1.StartMasterRequest, command []string) error {
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
		server = c.server
	}
	program.Env = append(os.Environ(),
		appmaster.EnvResourceManager+"="+server, appmaster.EnvApp+"="+request.GetName(), appmaster.EnvAppID+"="+started.GetAppId(),
		appmaster.EnvAttempt+"="+strconv.Itoa(int(started.GetAttempt())), appmaster.EnvToken+"="+started.GetToken(),
	)
	program.Stdin, program.Stdout, program.Stderr = c.in, c.out, c.err
	program.Cancel = func() error { return program.Process.Signal(syscall.SIGTERM) }
	err = program.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.As(err, &exit) {
		return fmt.Errorf("the application master ended: %v; what it has started runs on until another run takes over, or `mammoth app stop %s`", exit, request.GetName())
	}
	return err
}
