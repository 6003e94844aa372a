package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/eventlog"
)

// eventCommands print what has happened in the zone.
type eventCommands struct{ client }

func (c *eventCommands) eventsCommand() *cobra.Command {
	request := &apiv1.WatchEventsRequest{}
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Print every transition in the zone",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return c.watchEvents(cmd, request) },
	}
	flags := cmd.Flags()
	flags.StringVar(&request.App, "app", "", "only those of this app")
	flags.StringVar(&request.Node, "node", "", "only those of this node")
	flags.StringVar(&request.Kind, "kind", "", "only those of this kind, as in container")
	flags.Int64Var(&request.After, "after", 0, "only those after this sequence number")
	eventFlags(cmd, request)
	must(cmd.RegisterFlagCompletionFunc("app", c.completeApps))
	must(cmd.RegisterFlagCompletionFunc("node", c.completeNodes))
	must(cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(
		eventlog.Kinds, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func (c *eventCommands) appEventsCommand() *cobra.Command {
	request := &apiv1.WatchEventsRequest{}
	cmd := &cobra.Command{
		Use:               "events NAME",
		Short:             "Print every transition of an app",
		Args:              appName(),
		ValidArgsFunction: firstArgument(c.completeApps),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.App = args[0]
			return c.watchEvents(cmd, request)
		},
	}
	eventFlags(cmd, request)
	return cmd
}

func eventFlags(cmd *cobra.Command, request *apiv1.WatchEventsRequest) {
	cmd.Flags().BoolVarP(&request.Follow, "follow", "f", false, "follow new events")
	cmd.Flags().Int32("tail", 0, "only the last so many (default: all)")
}

func (c *eventCommands) watchEvents(cmd *cobra.Command, request *apiv1.WatchEventsRequest) error {
	if tail, _ := cmd.Flags().GetInt32("tail"); cmd.Flags().Changed("tail") {
		if tail < 0 {
			return usagef("--tail: %d is not a number of events; leave it out for all of them", tail)
		}
		request.Tail = &tail
	}
	if err := eventlog.CheckKind(request.GetKind()); err != nil {
		return usageError{err}
	}
	ctx := cmd.Context()
	return c.with(ctx, func(z *zone) error {
		stream, err := z.events.WatchEvents(ctx, request)
		if err != nil {
			return err
		}
		none := true
		lines := &eventLines{out: c.out, hold: !request.GetFollow()}
		if request.GetFollow() {
			lines.widths = [4]int{12, 9, 12, 24} // the usual widths
		}
		err = receive(ctx, func() error {
			event, err := stream.Recv()
			if err != nil {
				return err
			}
			none = false
			return c.printOne(event, func(io.Writer) error { return lines.add(event) })
		})
		err = errors.Join(err, lines.flush())
		// A removed app or node still has events; a name that never existed has none.
		if err == nil && none && request.GetApp() != "" && ctx.Err() == nil {
			_, err = z.apps.GetApp(ctx, &apiv1.GetAppRequest{Name: request.GetApp()})
		}
		if err == nil && none && request.GetNode() != "" && ctx.Err() == nil {
			_, err = z.nodes.GetNode(ctx, &apiv1.GetNodeRequest{Name: request.GetNode()})
		}
		return err
	})
}

// eventLines writes events in columns that are as wide as the widest cell so far.
type eventLines struct {
	out    io.Writer
	widths [4]int
	// held are the events that wait for the last one, if nothing follows.
	held [][5]string
	hold bool
}

func (l *eventLines) add(event *apiv1.Event) error {
	transition, message := event.GetTo(), event.GetMessage()
	if event.GetFrom() != "" {
		transition = event.GetFrom() + " → " + event.GetTo()
	}
	if event.GetKind() == "container" && event.GetNode() != "" {
		message += " [" + event.GetNode() + "]"
	}
	cells := [5]string{clock(event.GetTime().AsTime()), event.GetKind(), subject(event), transition, message}
	for i := range l.widths {
		l.widths[i] = max(l.widths[i], utf8.RuneCountInString(cells[i]))
	}
	if l.hold {
		l.held = append(l.held, cells)
		return nil
	}
	return l.write(cells)
}

func (l *eventLines) write(cells [5]string) error {
	var line strings.Builder
	for i, width := range l.widths {
		fmt.Fprintf(&line, "%-*s  ", width, cells[i])
	}
	_, err := fmt.Fprintln(l.out, strings.TrimRight(line.String()+cells[4], " "))
	return err
}

// flush writes the held events.
func (l *eventLines) flush() error {
	for _, cells := range l.held {
		if err := l.write(cells); err != nil {
			return err
		}
	}
	return nil
}

// subject is the name of an event's object.
func subject(event *apiv1.Event) string {
	byKind := map[string]string{
		"app": event.GetApp(), "status": event.GetApp(), "attempt": event.GetApp(), "instance": event.GetInstance(),
		"container": event.GetInstance(), "node": event.GetNode(), "queue": event.GetQueue(),
	}
	for _, name := range []string{byKind[event.GetKind()], event.GetInstance(), event.GetApp(), event.GetNode(), event.GetQueue()} {
		if name != "" {
			return name
		}
	}
	return "-"
}
