package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func (c *cli) appLogsCommand() *cobra.Command {
	request := &apiv1.AppLogsRequest{}
	var since time.Duration
	var timestamps bool
	cmd := &cobra.Command{
		Use:               "logs NAME",
		Short:             "Print what an app's instances write",
		Example:           "  mammoth app logs web --tail 20\n  mammoth app logs web --instance web-1 --since 10m -f",
		Args:              appName(),
		ValidArgsFunction: firstArgument(c.completeApps),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Name = args[0]
			if cmd.Flags().Changed("tail") && request.GetTail() < 1 {
				return usagef("--tail: %d is not a number of lines; leave it out for all of them", request.GetTail())
			}
			if since < 0 {
				return usagef("--since: %s lies ahead; write how long ago, as in 10m", since)
			}
			if since > 0 {
				request.Since = timestamppb.New(time.Now().Add(-since))
			}
			return c.with(cmd.Context(), func(z *zone) error {
				ctx := cmd.Context()
				// One instance needs no prefix; which case it is must be known before the first line.
				prefix := request.GetInstance() == ""
				if prefix && c.output == "table" {
					app, err := z.apps.GetApp(ctx, &apiv1.GetAppRequest{Name: request.GetName()})
					if err != nil {
						return err
					}
					prefix = app.GetWanted() > 1 || len(app.GetInstances()) > 1 || request.GetPrevious()
				}
				stream, err := z.apps.AppLogs(ctx, request)
				if err != nil {
					return err
				}
				return c.receive(ctx, func() error {
					chunk, err := stream.Recv()
					if err != nil {
						return err
					}
					return c.printOne(chunk, func(w io.Writer) error { return c.logLines(chunk, prefix, timestamps) })
				})
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&request.Instance, "instance", "", "only this instance's")
	flags.Int32Var(&request.Tail, "tail", 0, "only the last so many lines of each (default: all)")
	flags.DurationVar(&since, "since", 0, "only what was written since so long ago, as in 10m")
	flags.BoolVarP(&request.Follow, "follow", "f", false, "go on as more is written")
	flags.BoolVar(&request.Previous, "previous", false, "also of containers that have ended")
	flags.BoolVarP(&timestamps, "timestamps", "t", false, "begin each line with its time")
	must(cmd.RegisterFlagCompletionFunc("instance", c.completeInstances))
	return cmd
}

// logLines writes output to the stream of the same name, as it was written there.
func (c *cli) logLines(chunk *corev1.LogChunk, prefix, timestamps bool) error {
	for _, line := range chunk.GetLines() {
		out := c.out
		if line.GetStream() == corev1.LogChunk_STDERR {
			out = c.err
		}
		text := line.GetText()
		if timestamps {
			text = line.GetTime().AsTime().Format("2006-01-02T15:04:05.000000Z") + " " + text
		}
		if prefix {
			text = chunk.GetInstance() + " | " + text
		}
		if _, err := fmt.Fprintln(out, text); err != nil {
			return err
		}
	}
	return nil
}

// receive calls next until the stream ends. To interrupt it is how a person says that it is enough.
func (c *cli) receive(ctx interface{ Err() error }, next func() error) error {
	for {
		err := next()
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), ctx.Err() != nil:
			return nil
		default:
			return err
		}
	}
}
