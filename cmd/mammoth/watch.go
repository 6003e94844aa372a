package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mammoth-os/mammoth/internal/backoff"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// watching is the flag of lists that are followed.
type watching struct{ watch bool }

func (w *watching) flag(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&w.watch, "watch", "w", false, "then print each change, until Ctrl-C")
}

// without refuses flags that a watch does not know.
func (w *watching) without(cmd *cobra.Command, flags ...string) error {
	for _, name := range flags {
		if cmd.Flags().Changed(name) {
			return usagef("--watch prints changes whatever --%s says; leave one of them out", name)
		}
	}
	return nil
}

// changes prints what there is as a table and then a line for each change. A watch that breaks goes on where it was.
type changes struct {
	printer *printer
	request *apiv1.WatchRequest
	table   func(io.Writer, []*apiv1.WatchResponse_Change) error
	// begun are the objects that there are, until all of them are known.
	begun     []*apiv1.WatchResponse_Change
	beginning bool
}

func (c *changes) follow(ctx context.Context, z *zone) error {
	return followChanges(ctx, z, c.request, c.take)
}

// followChanges gives take what a watch sends, until take fails. A watch that breaks goes on where it was, once the zone answers again. If
// the request has no index yet, the zone has to answer at once.
func followChanges(ctx context.Context, z *zone, request *apiv1.WatchRequest, take func(*apiv1.WatchResponse) error) error {
	retry := backoff.Policy{Min: 100 * time.Millisecond, Max: 2 * time.Second}
	for failures := 0; ; {
		stream, err := z.zones.Watch(ctx, request)
		if err == nil {
			err = receive(ctx, func() error {
				response, err := stream.Recv()
				if err != nil {
					return err
				}
				failures = 0
				request.Index = response.GetIndex()
				return take(response)
			})
		}
		switch code := status.Code(err); {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && (code != codes.Unavailable && code != codes.Aborted || request.GetIndex() == 0):
			return err
		}
		failures++
		if err := backoff.Sleep(ctx, retry.After(failures)); err != nil {
			return err
		}
	}
}

func (c *changes) take(response *apiv1.WatchResponse) error {
	if response.GetRestarted() {
		c.begun, c.beginning = nil, true
	}
	if c.beginning && c.printer.output == "table" {
		c.begun = append(c.begun, response.GetChanges()...)
		if !response.GetCurrent() {
			return nil
		}
		begun := c.begun
		c.begun, c.beginning = nil, false
		return c.table(c.printer.out, begun)
	}
	for _, change := range response.GetChanges() {
		if err := c.printer.printOne(change, func(w io.Writer) error { return changeLine(w, change) }); err != nil {
			return err
		}
	}
	return nil
}

// changeLine is a change in one line: when it came, what has changed, and how it is now.
func changeLine(w io.Writer, change *apiv1.WatchResponse_Change) error {
	cells := []string{clock(time.Now()), change.GetName()}
	add := func(format string, arguments ...any) {
		if text := fmt.Sprintf(format, arguments...); text != "" {
			cells = append(cells, visible(text))
		}
	}
	if change.GetRemoved() {
		add("removed")
	}
	switch object := change.GetObject().(type) {
	case *apiv1.WatchResponse_Change_App:
		if !change.GetRemoved() {
			add("%s", stateWord(object.App))
			add("%d/%d", object.App.GetRunning(), desiredCount(object.App))
			add("version %d", object.App.GetVersion())
			add("%s", shortReason(object.App))
		}
	case *apiv1.WatchResponse_Change_Node:
		if !change.GetRemoved() {
			add("%s", word(object.Node.GetState()))
			add("%s", plural(len(object.Node.GetContainers()), "container"))
			add("%s", object.Node.GetReason())
		}
	case *apiv1.WatchResponse_Change_Container:
		add("%s", object.Container.GetApp())
		add("%s", object.Container.GetInstance())
		add("%s", object.Container.GetNode())
		add("%s", containerState(object.Container))
	}
	_, err := fmt.Fprintln(w, strings.Join(cells, "  "))
	return err
}
