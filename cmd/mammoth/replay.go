package main

import (
	"fmt"
	"io"
	"os"
	"reflect"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mammoth-os/mammoth/resourcemanager/recording"
)

func (c *simulationCommands) replayCommand() *cobra.Command {
	show := -1
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "Play back what a ResourceManager has recorded with --record, without a zone",
		Long: `Replay applies the inputs of a recorded zone to a zone in memory, turn by turn, and compares the decisions and
answers. The same program decides the same, including its faults. With another version it shows the first turn that differs.

With --turn it also shows the inputs and decisions of that turn, which may contain tokens of the zone.

  mammoth resourcemanager --dir DIR --record zone.recording
  mammoth replay zone.recording --turn 1200

Exit code 1 if a turn decides or answers something else than when it was recorded.`,
		Args: names("the file of a recording"),
		RunE: func(_ *cobra.Command, args []string) error {
			file, err := os.Open(args[0])
			if err != nil {
				return usageError{plainPathError(err)}
			}
			defer file.Close() //nolint:errcheck // nothing was written
			var shown *recording.Turn
			played, err := recording.Replay(file, func(turn recording.Turn) error {
				if turn.Number == show {
					shown = &turn
				}
				return nil
			})
			if err != nil {
				return usageError{inFile(args[0], err)}
			}
			if show >= 0 && shown == nil {
				return usagef("%s has no turn %d; the last one is %d", args[0], show, played.Turns)
			}
			if err := c.printPlayed(played, shown); err != nil {
				return err
			}
			if played.Others > 0 {
				return fmt.Errorf("%s, first turn %d, decided or answered something else than when they were recorded; the recording is of version %s, this is %s",
					plural(played.Others, "turn"), played.FirstOther, played.Start.Settings.Version, version)
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&show, "turn", -1, "also show this turn; 0 is the start of the zone")
	return cmd
}

func (c *simulationCommands) printPlayed(played recording.Played, shown *recording.Turn) error {
	summary := played.Zone.Summary()
	fields := map[string]any{
		"zone": played.Start.Settings.Name, "version": played.Start.Settings.Version,
		"from": played.Start.Now.UTC().Format(time.RFC3339Nano), "until": played.Until.UTC().Format(time.RFC3339Nano),
		"turns": played.Turns, "inputs": played.Inputs, "others": played.Others,
		"nodes": summary.GetNodes(), "apps": summary.GetApps(), "containers": summary.GetContainers(),
	}
	var given, decided []string
	if shown != nil {
		given, decided = givenTo(shown), decidedBy(shown)
		fields["turn"] = map[string]any{
			"number": shown.Number, "at": shown.Now.UTC().Format(time.RFC3339Nano), "same": shown.Same,
			"given": anys(given), "decided": anys(decided),
		}
	}
	message, err := structpb.NewStruct(fields)
	if err != nil {
		return fmt.Errorf("encode what was played: %w", err)
	}
	return c.print(message, func(w io.Writer) error {
		fmt.Fprintf(w, "zone %s, recorded by version %s\n", fields["zone"], fields["version"])
		fmt.Fprintf(w, "%s with %s from %s to %s\n", plural(played.Turns, "turn"), plural(played.Inputs, "input"), fields["from"], fields["until"])
		fmt.Fprintf(w, "in the end it has %s, %s and %s\n", plural(int(summary.GetNodes()), "node"), plural(int(summary.GetApps()), "app"), plural(int(summary.GetContainers()), "container"))
		if shown == nil {
			return nil
		}
		fmt.Fprintf(w, "\nturn %d, at %s\n", shown.Number, shown.Now.UTC().Format(time.RFC3339Nano))
		for _, line := range given {
			fmt.Fprintf(w, "  given    %s\n", line)
		}
		for _, line := range decided {
			fmt.Fprintf(w, "  decided  %s\n", line)
		}
		return nil
	})
}

// givenTo lists the inputs of a turn, a line each.
func givenTo(turn *recording.Turn) []string {
	var lines []string
	for i, in := range turn.Inputs {
		line := fmt.Sprintf("%s %+v", reflect.TypeOf(in).Name(), in)
		answer := turn.Answers[i]
		switch {
		case answer.Err != nil:
			line += ": " + answer.Err.Error()
		case answer.Value != nil:
			line += fmt.Sprintf(": %+v", answer.Value)
		}
		lines = append(lines, line)
	}
	return lines
}

// decidedBy lists the decisions of a turn, a line each.
func decidedBy(turn *recording.Turn) []string {
	out := turn.Ready
	var lines []string
	say := func(format string, arguments ...any) { lines = append(lines, fmt.Sprintf(format, arguments...)) }
	for _, event := range out.Events {
		say("event %d: %s", event.GetSequence(), event.GetMessage())
	}
	for _, put := range out.Batch.Puts {
		switch {
		case put.Value == nil:
			say("delete the %s record %s", put.Kind, put.Key)
		default:
			say("store the %s record %s, %d bytes", put.Kind, put.Key, len(put.Value))
		}
	}
	for _, change := range out.Services {
		say("publish %s with %s", change.Service, plural(len(change.Endpoints), "endpoint"))
	}
	for _, request := range out.Confirm {
		say("ask balancers to confirm %v as number %d", request.Services, request.Number)
	}
	for _, send := range out.Commands {
		for _, command := range send.Commands {
			say("command on stream %d: %v", send.Stream, command)
		}
	}
	for _, send := range out.Responses {
		say("response on stream %d: %v", send.Stream, send.Response)
	}
	for _, end := range out.Ends {
		say("end stream %d: %v", end.Stream, end.Why)
	}
	for _, fault := range out.Faults {
		say("log: %s %v", fault.Text, fault.About)
	}
	return lines
}
