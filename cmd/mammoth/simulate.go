package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mammoth-os/mammoth/resourcemanager/simulate"
)

// simulationCommands run a zone in memory: from a scenario, or from a recording.
type simulationCommands struct{ *printer }

func (c *simulationCommands) simulateCommand() *cobra.Command {
	var page string
	var seed uint64
	cmd := &cobra.Command{
		Use:   "simulate SCENARIO.yaml",
		Short: "Run the scheduler through a scenario on a virtual clock, without a zone",
		Long: `Simulate drives the scheduler of a real zone through a scenario: nodes that fail, queues, lending contracts,
services that follow the day, and batch jobs. The same scenario and seed give the same report.

  mammoth simulate examples/scenarios/night-lending.yaml --html night.html`,
		Args: names("the file of a scenario"),
		ValidArgsFunction: firstArgument(func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			scenario, err := simulate.Load(args[0])
			var path *os.PathError
			switch {
			case errors.As(err, &path):
				return usageError{plainPathError(err)}
			case err != nil:
				return usageError{inFile(args[0], err)}
			}
			bar := newSimulationBar(c.err)
			report, err := simulate.Run(cmd.Context(), scenario, simulate.Options{Seed: seed, Progress: bar.update})
			bar.end()
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if page != "" {
				if err := writePage(page, &report); err != nil {
					return err
				}
			}
			return c.printReport(&report)
		},
	}
	cmd.Flags().StringVar(&page, "html", "", "also write a page with charts to this file")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "another random run than the scenario's own")
	must(cmd.MarkFlagFilename("html", "html"))
	return cmd
}

func writePage(path string, report *simulate.Report) error {
	file, err := os.Create(path)
	if err != nil {
		return plainPathError(err)
	}
	return errors.Join(report.WriteHTML(file), file.Close())
}

func (c *simulationCommands) printReport(report *simulate.Report) error {
	switch c.output {
	case "json", "yaml":
		var raw bytes.Buffer
		encoder := json.NewEncoder(&raw)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(report); err != nil {
			return fmt.Errorf("encode the report: %w", err)
		}
		text := raw.Bytes()
		if c.output == "yaml" {
			var err error
			if text, err = yamlOf(text); err != nil {
				return err
			}
		}
		_, err := c.out.Write(text)
		return err
	}
	return report.WriteTable(c.out)
}

// simulationBar shows on a terminal how much of the simulated time is done; elsewhere it prints nothing.
type simulationBar struct {
	bar   *progressbar.ProgressBar
	total time.Duration
}

func newSimulationBar(to io.Writer) *simulationBar {
	var out io.Writer
	if file, ok := to.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		out = file
	}
	if out == nil {
		return &simulationBar{}
	}
	return &simulationBar{bar: progressbar.NewOptions64(1,
		progressbar.OptionSetWriter(out), progressbar.OptionSetDescription("simulating"), progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth(),
	)}
}

func (b *simulationBar) update(done, total time.Duration) {
	if b.bar == nil {
		return
	}
	if total != b.total {
		b.total = total
		b.bar.ChangeMax64(int64(total / time.Second))
	}
	_ = b.bar.Set64(min(int64(done/time.Second), int64(total/time.Second)-1)) // at the end it would clear itself, and more may come
}

func (b *simulationBar) end() {
	if b.bar != nil {
		_ = b.bar.Finish()
	}
}
