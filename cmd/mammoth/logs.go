package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// logCommands print the output of apps.
type logCommands struct{ client }

func (c *logCommands) appLogsCommand() *cobra.Command {
	request := &apiv1.AppLogsRequest{}
	var since time.Duration
	var tail int32
	var form logForm
	cmd := &cobra.Command{
		Use:               "logs NAME",
		Short:             "Print what an app's instances write",
		Example:           "  mammoth app logs web --tail 20\n  mammoth app logs web --instance web-1 --since 10m -f",
		Args:              appName(),
		ValidArgsFunction: firstArgument(c.completeApps),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Name = args[0]
			if cmd.Flags().Changed("tail") {
				if tail < 0 {
					return usagef("--tail: %d is not a number of lines; leave it out for all of them", tail)
				}
				request.Tail = &tail
			}
			form.escaped = !form.raw && isTerminal(c.out)
			if since < 0 {
				return usagef("--since: %s lies ahead; write how long ago, as in 10m", since)
			}
			if since > 0 {
				request.Since = timestamppb.New(time.Now().Add(-since))
			}
			return c.with(cmd.Context(), func(z *zone) error {
				ctx := cmd.Context()
				// A single instance needs no prefix; this must be known before the first line.
				form.prefix = request.GetInstance() == ""
				if form.prefix && c.printer.output == "table" {
					app, err := z.apps.GetApp(ctx, &apiv1.GetAppRequest{Name: request.GetName()})
					if err != nil {
						return err
					}
					form.prefix = app.GetWanted() > 1 || len(app.GetInstances()) > 1 || request.GetPrevious()
					c.sayWhoseLogs(app)
				}
				stream, err := z.apps.AppLogs(ctx, request)
				if err != nil {
					return err
				}
				return receive(ctx, func() error {
					chunk, err := stream.Recv()
					if err != nil {
						return err
					}
					return c.printOne(chunk, func(w io.Writer) error { return c.logLines(chunk, form) })
				})
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&request.Instance, "instance", "", "only this instance's")
	flags.Int32Var(&tail, "tail", 0, "only the last so many lines of each (default: all)")
	roleFlag(c.completions, cmd, &request.Role, "only of this role, of an app with several")
	flags.DurationVar(&since, "since", 0, "only what was written since so long ago, as in 10m")
	flags.BoolVarP(&request.Follow, "follow", "f", false, "follow new output, also of new instances, until the app ends")
	flags.BoolVar(&request.Previous, "previous", false, "also of containers that have ended")
	flags.BoolVarP(&form.timestamps, "timestamps", "t", false, "begin each line with its time")
	flags.BoolVar(&form.raw, "raw", false, "print control characters as they are on a terminal too, colours among them")
	must(cmd.RegisterFlagCompletionFunc("instance", c.completeInstances))
	return cmd
}

// sayWhoseLogs prints a line if no instance of an app runs: the logs are those of ended containers.
func (c *logCommands) sayWhoseLogs(app *apiv1.App) {
	for _, instance := range app.GetInstances() {
		if state := instance.GetState(); state != apiv1.Instance_PENDING && state != apiv1.Instance_BACKOFF {
			return
		}
	}
	fmt.Fprintf(c.err, "mammoth: no instance of %s runs; this is the output of the last ones; `mammoth app explain %s` shows why\n", app.GetName(), app.GetName())
}

// logForm is how lines of output are printed.
type logForm struct{ prefix, timestamps, raw, escaped bool }

// logLines writes output to the stream of the same name.
func (c *logCommands) logLines(chunk *corev1.LogChunk, form logForm) error {
	for _, line := range chunk.GetLines() {
		out := c.out
		if line.GetStream() == corev1.LogChunk_STDERR {
			out = c.err
		}
		text := line.GetText()
		if form.escaped {
			text = visible(text)
		}
		if form.timestamps {
			text = line.GetTime().AsTime().Format("2006-01-02T15:04:05.000000Z") + " " + text
		}
		if form.prefix {
			text = chunk.GetInstance() + " | " + text
		}
		if _, err := fmt.Fprintln(out, text); err != nil {
			return err
		}
	}
	return nil
}

// receive calls next until the stream ends. An interruption is a person's normal end.
func receive(ctx context.Context, next func() error) error {
	for {
		err := next()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return nil
		default:
			return err
		}
	}
}
