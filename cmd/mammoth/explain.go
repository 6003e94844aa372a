package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/sentence"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

func (c *appCommands) appExplainCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "explain NAME",
		Short:             "Say in words what an app is waiting for",
		Args:              appName(),
		ValidArgsFunction: firstArgument(c.completeApps),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				explanation, err := z.apps.ExplainApp(cmd.Context(), &apiv1.GetAppRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return c.print(explanation, func(w io.Writer) error { return explanationText(w, explanation) })
			})
		},
	}
}

func explanationText(w io.Writer, explanation *apiv1.Explanation) error {
	if _, err := fmt.Fprintln(w, explanation.GetSummary()); err != nil {
		return err
	}
	for _, alike := range mergeObstacles(explanation.GetObstacles()) {
		obstacle := alike[0]
		fmt.Fprintf(w, "  %s: %s\n", subjects(alike), reasonFor(len(alike), obstacle.GetReason()))
		if obstacle.GetLimit() != "" && !strings.Contains(obstacle.GetReason(), obstacle.GetLimit()) {
			fmt.Fprintf(w, "    %s\n", obstacle.GetLimit())
		}
		if obstacle.GetHelp() != "" {
			fmt.Fprintf(w, "    %s\n", obstacle.GetHelp())
		}
		for _, test := range obstacle.GetFailedTests() {
			fmt.Fprintf(w, "    %s: %s", test.GetTest(), plural(int(test.GetNodes()), "node"))
			if test.GetExample() != "" && !strings.Contains(obstacle.GetReason(), test.GetExample()) {
				fmt.Fprintf(w, " (%s)", test.GetExample())
			}
			fmt.Fprintln(w)
		}
	}
	return nil
}

// mergeObstacles groups obstacles of several instances with the same reason.
func mergeObstacles(obstacles []*apiv1.Obstacle) [][]*apiv1.Obstacle {
	var groups [][]*apiv1.Obstacle
	for _, o := range obstacles {
		i := slices.IndexFunc(groups, func(group []*apiv1.Obstacle) bool {
			first := proto.CloneOf(group[0])
			first.Subject, first.Count = o.GetSubject(), o.GetCount()
			return proto.Equal(first, o)
		})
		if i < 0 {
			groups = append(groups, nil)
			i = len(groups) - 1
		}
		groups[i] = append(groups[i], o)
	}
	return groups
}

// reasonFor is a reason about one instance, worded for so many.
func reasonFor(count int, reason string) string {
	if count == 1 {
		return reason
	}
	for _, words := range [...][2]string{
		{"it waits for its turn", "they wait for their turn"},
		{"it waits ", "they wait "},
		{"it is ", "they are "},
		{"its replacement is ", "their replacements are "},
		{"its ", "their "},
	} {
		if rest, ok := strings.CutPrefix(reason, words[0]); ok {
			return words[1] + strings.Replace(rest, "; it last ended: ", "; they last ended: ", 1)
		}
	}
	return reason
}

// subjects lists the first few.
func subjects(obstacles []*apiv1.Obstacle) string {
	var names []string
	for _, o := range obstacles {
		name := o.GetSubject()
		if o.GetCount() > 1 {
			name += fmt.Sprintf(" (%d)", o.GetCount())
		}
		names = append(names, name)
	}
	return sentence.Names(names)
}
