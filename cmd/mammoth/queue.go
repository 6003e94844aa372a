package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mammoth-os/mammoth/internal/manifest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// queueCommands show the queues and replace them.
type queueCommands struct {
	client
	in io.Reader
}

func (c *queueCommands) queueCommand() *cobra.Command {
	return group("queue", "See and change queues", c.queueListCommand(), c.queueShowCommand(), c.queueSetCommand())
}

func (c *queueCommands) queueListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List queues",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				answer, err := z.queues.ListQueues(cmd.Context(), &apiv1.ListQueuesRequest{})
				if err != nil {
					return err
				}
				return c.print(answer, func(w io.Writer) error { return queueTable(w, answer.GetQueues()) })
			})
		},
	}
}

func queueTable(w io.Writer, queues []*apiv1.Queue) error {
	depth := map[string]int{}
	t := newTable(w, "NAME", "STATE", "GUARANTEED", "MAXIMUM", "USED", "PENDING", "APPS", "CONTAINERS", "ORDER", "USER LIMIT", "SUBMIT", "ADMIN")
	for _, queue := range queues {
		spec := queue.GetSpec()
		if spec.GetParent() != "" {
			depth[spec.GetName()] = depth[spec.GetParent()] + 1
		}
		t.row(strings.Repeat("  ", depth[spec.GetName()])+spec.GetName(), word(spec.GetState()), capacity(spec.GetGuaranteed()),
			capacity(spec.GetMaximum()), amounts(queue.GetUsed()), amounts(queue.GetPending()), ofAtMost(queue.GetApps(), spec.GetMaxApps()), queue.GetContainers(),
			word(spec.GetOrder()), limit(spec.GetUserLimitPercent()), strings.Join(spec.GetSubmit(), ","), strings.Join(spec.GetAdmin(), ","))
	}
	return t.Flush()
}

// capacity formats a share as it was given; empty if none was.
func capacity(c *apiv1.Capacity) string {
	switch {
	case c == nil:
		return ""
	case c.Percent != nil:
		return strconv.FormatFloat(c.GetPercent(), 'f', -1, 64) + "%"
	}
	return amounts(c.GetAbsolute())
}

// limit formats a percentage; zero is no limit.
func limit(percent float64) string {
	if percent == 0 {
		return ""
	}
	return strconv.FormatFloat(percent, 'f', -1, 64) + "%"
}

// ofAtMost formats a count and its limit, if it has one.
func ofAtMost(n, most int32) string {
	if most == 0 {
		return strconv.Itoa(int(n))
	}
	return fmt.Sprintf("%d/%d", n, most)
}

// amounts formats cpu, memory and disk in one cell, without what has no limit.
func amounts(r *corev1.Resources) string {
	var parts []string
	for _, part := range []struct {
		amount int64
		text   string
	}{
		{r.GetCpuMillis(), cores(r.GetCpuMillis()) + " cpu"},
		{r.GetMemoryBytes(), size(r.GetMemoryBytes())},
		{r.GetDiskBytes(), size(r.GetDiskBytes()) + " disk"},
	} {
		if part.amount != 0 && part.amount != math.MaxInt64 {
			parts = append(parts, part.text)
		}
	}
	return strings.Join(parts, ", ")
}

func (c *queueCommands) queueShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Show a queue",
		Args:              names("the name of a queue"),
		ValidArgsFunction: firstArgument(c.completeQueues),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				queue, err := z.queues.GetQueue(cmd.Context(), &apiv1.GetQueueRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return c.print(queue, func(w io.Writer) error { return queueText(w, queue) })
			})
		},
	}
}

func queueText(w io.Writer, queue *apiv1.Queue) error {
	spec := queue.GetSpec()
	given := func(share *apiv1.Capacity, is *corev1.Resources) string {
		switch {
		case share == nil || share.Percent == nil:
			return amounts(is)
		case amounts(is) == "":
			return capacity(share)
		}
		return fmt.Sprintf("%s (%s)", capacity(share), amounts(is))
	}
	t := newTable(w)
	t.row("name", spec.GetName())
	t.row("parent", orDash(spec.GetParent()))
	t.row("state", word(spec.GetState()))
	t.row("order", word(spec.GetOrder()))
	t.row("guaranteed", orDash(given(spec.GetGuaranteed(), queue.GetGuaranteed())))
	t.row("maximum", orDash(given(spec.GetMaximum(), queue.GetMaximum())))
	if notice := spec.GetNotice(); notice != nil {
		t.row("notice", notice.AsDuration())
	}
	t.row("used", orDash(amounts(queue.GetUsed())))
	t.row("pending", orDash(amounts(queue.GetPending())))
	t.row("apps", ofAtMost(queue.GetApps(), spec.GetMaxApps()))
	t.row("containers", queue.GetContainers())
	if percent := spec.GetMaxMasterPercent(); percent > 0 {
		t.row("masters", "at most "+limit(percent))
	}
	t.row("user limit", orDash(limit(spec.GetUserLimitPercent())))
	t.row("submit", orDash(strings.Join(spec.GetSubmit(), ", ")))
	t.row("admin", orDash(strings.Join(spec.GetAdmin(), ", ")))
	return t.Flush()
}

func (c *queueCommands) queueSetCommand() *cobra.Command {
	var file string
	request := &apiv1.SetQueuesRequest{}
	cmd := &cobra.Command{
		Use:   "set -f FILE",
		Short: "Replace the queue tree by the one in a file",
		Long: `Set replaces the whole queue tree by the one in a file, or changes nothing.

  queues:
    - {name: default}               # where apps go that name no queue
    - {name: apps, guaranteed: 60%, maximum: 100%}
    - {name: batch, guaranteed: {cpu: 4, memory: 8GiB}, maxApps: 20, order: fair, notice: 30s}

A queue without a parent stands below "root". "-" is standard input. Where the zone was started
with --queues FILE, the tree is changed in that file instead.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usagef("`mammoth queue set` needs a file: -f FILE, or -f - for standard input")
			}
			data, err := readFile(c.in, file)
			if err != nil {
				return err
			}
			if request.Queues, err = manifest.ParseQueues(data); err != nil {
				return usageError{inFile(file, err)}
			}
			return atLine(file, data, collect(request.GetQueues(), (*apiv1.QueueSpec).GetName), c.with(cmd.Context(), func(z *zone) error {
				answer, err := z.queues.SetQueues(cmd.Context(), request)
				if err != nil {
					return err
				}
				return c.print(answer, func(w io.Writer) error { return queueTable(w, answer.GetQueues()) })
			}))
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the queue file, - for standard input")
	cmd.Flags().BoolVar(&request.DryRun, "dry-run", false, "only check the file and show what would be")
	must(cmd.MarkFlagFilename("file", "yaml", "yml"))
	return cmd
}

// readFile reads a file that a person wrote; "-" is standard input.
func readFile(in io.Reader, path string) ([]byte, error) {
	if path == "-" {
		return readText(in)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, usageError{plainPathError(err)}
	}
	defer file.Close()
	data, err := readText(file)
	if err != nil {
		return nil, usageError{err}
	}
	return data, nil
}
