package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/manifest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// lendingCommands manage the contracts of lending, and report on them.
type lendingCommands struct {
	client
	in io.Reader
}

func (c *lendingCommands) lendCommand() *cobra.Command {
	return group("lend", "Have queues lend what they do not need, by the clock",
		c.lendListCommand(), c.lendShowCommand(), c.lendAddCommand(), c.lendRemoveCommand(), c.lendNowCommand(), c.lendStopCommand(), c.lendReportCommand())
}

func (c *lendingCommands) lendListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List lending contracts and where they stand",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				answer, err := z.lending.ListContracts(cmd.Context(), &apiv1.ListContractsRequest{})
				if err != nil {
					return err
				}
				return c.print(answer, func(w io.Writer) error { return contractTable(w, answer.GetContracts()) })
			})
		},
	}
}

func contractTable(w io.Writer, contracts []*apiv1.Contract) error {
	t := newTable(w, "NAME", "LENDER", "BORROWERS", "LEND", "FLOOR", "STATE", "CLOSES", "OPENS", "LENT", "BORROWED")
	for _, k := range contracts {
		spec := k.GetSpec()
		t.row(spec.GetName(), spec.GetLender(), strings.Join(spec.GetBorrowers(), ","), percent(spec.GetLendPercent()), percent(spec.GetFloorPercent()),
			word(k.GetState()), closing(k), moment(k.GetOpensAt()), amounts(k.GetLent()), orDash(amounts(k.GetBorrowed())))
	}
	return t.Flush()
}

func percent(value float64) string { return strconv.FormatFloat(value, 'f', -1, 64) + "%" }

// moment formats a time of the calendar in the reader's own time zone.
func closing(k *apiv1.Contract) string {
	if k.GetState() == apiv1.Contract_LENDING && k.GetClosesAt() == nil {
		return "always open"
	}
	return moment(k.GetClosesAt())
}

func moment(at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	return at.AsTime().Local().Format("Mon 2006-01-02 15:04:05 MST")
}

func (c *lendingCommands) lendShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Show a lending contract and its ledger",
		Args:              names("the name of a contract"),
		ValidArgsFunction: firstArgument(c.completeContracts),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				contract, err := z.lending.GetContract(cmd.Context(), &apiv1.GetContractRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return c.print(contract, func(w io.Writer) error { return contractText(w, contract) })
			})
		},
	}
}

func contractText(w io.Writer, k *apiv1.Contract) error {
	spec, ledger := k.GetSpec(), k.GetLedger()
	t := newTable(w)
	t.row("name", spec.GetName())
	t.row("lender", spec.GetLender())
	t.row("borrowers", strings.Join(spec.GetBorrowers(), ", "))
	if window := spec.GetWindow(); window != nil {
		zone := window.GetTimezone()
		if zone == "" {
			zone = "UTC"
		}
		t.row("window", fmt.Sprintf("%s for %s, %s", window.GetCron(), window.GetDuration().AsDuration(), zone))
	} else {
		t.row("window", "only by hand")
	}
	t.row("lends", percent(spec.GetLendPercent())+" of its guarantee")
	t.row("floor", percent(spec.GetFloorPercent()))
	t.row("state", word(k.GetState()))
	t.row("closes", orDash(closing(k)))
	t.row("opens", orDash(moment(k.GetOpensAt())))
	t.row("lent", orDash(amounts(k.GetLent())))
	t.row("borrowed", orDash(amounts(k.GetBorrowed())))
	t.row("so far", fmt.Sprintf("%s core-hours lent, %s used; %d containers given back, %d stopped, %s core-hours lost",
		coreHours(ledger.GetLentCoreSeconds()), coreHours(ledger.GetUsedCoreSeconds()), ledger.GetReturnedContainers(), ledger.GetStoppedContainers(),
		coreHours(ledger.GetLostCoreSeconds())))
	return t.Flush()
}

func coreHours(coreSeconds float64) string {
	return strconv.FormatFloat(coreSeconds/3600, 'f', 2, 64)
}

func (c *lendingCommands) lendAddCommand() *cobra.Command {
	var file string
	request := &apiv1.AddContractsRequest{}
	cmd := &cobra.Command{
		Use:   "add -f FILE",
		Short: "Add the lending contracts of a file, or replace those of the same names",
		Long: `Add takes all contracts of a file, or none if one is wrong.

  lending:
    - name: nightly
      lender: apps                # keeps at least floor of its guarantee
      borrowers: [batch]
      window: {cron: "0 22 * * *", duration: 9h, timezone: Asia/Shanghai}
      lend: 60%                   # of the lender's guarantee
      floor: 25%
      notice: 2m                  # a borrower's containers hear this long before they are stopped
      grace: 30s                  # how long they may take to stop

Without a window a contract lends only with "mammoth lend now". "-" is standard input.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usagef("`mammoth lend add` needs a file: -f FILE, or -f - for standard input")
			}
			data, err := readFile(c.in, file)
			if err != nil {
				return err
			}
			if request.Contracts, err = manifest.ParseLending(data); err != nil {
				return usageError{inFile(file, err)}
			}
			return atLine(file, data, collect(request.GetContracts(), (*apiv1.ContractSpec).GetName), c.with(cmd.Context(), func(z *zone) error {
				answer, err := z.lending.AddContracts(cmd.Context(), request)
				if err != nil {
					return err
				}
				return c.print(answer, func(w io.Writer) error { return contractTable(w, answer.GetContracts()) })
			}))
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the lending file, - for standard input")
	cmd.Flags().BoolVar(&request.DryRun, "dry-run", false, "only check the file")
	must(cmd.MarkFlagFilename("file", "yaml", "yml"))
	return cmd
}

// atLine adds the file and the line to the zone's error about an entry.
func atLine(file string, data []byte, names []string, err error) error {
	if !errdefs.IsInvalidArgument(err) {
		return err
	}
	return fmt.Errorf("%s: %w", file, manifest.AtLine(data, names, err))
}

func (c *lendingCommands) lendRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME",
		Short:             "Remove a lending contract",
		Args:              names("the name of a contract"),
		ValidArgsFunction: firstArgument(c.completeContracts),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				answer, err := z.lending.RemoveContract(cmd.Context(), &apiv1.GetContractRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return c.print(answer, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "contract %s is removed\n", args[0])
					return err
				})
			})
		},
	}
}

func (c *lendingCommands) lendNowCommand() *cobra.Command {
	var length time.Duration
	cmd := &cobra.Command{
		Use:               "now NAME --for DURATION",
		Short:             "Open a contract's window at once, independently of the calendar, or extend the open one",
		Args:              names("the name of a contract"),
		ValidArgsFunction: firstArgument(c.completeContracts),
		RunE: func(cmd *cobra.Command, args []string) error {
			if length <= 0 {
				return usagef("`mammoth lend now` needs to know for how long: --for 30m")
			}
			return c.with(cmd.Context(), func(z *zone) error {
				before, err := z.lending.GetContract(cmd.Context(), &apiv1.GetContractRequest{Name: args[0]})
				if err != nil {
					return err
				}
				contract, err := z.lending.LendNow(cmd.Context(), &apiv1.LendNowRequest{Name: args[0], For: durationpb.New(length)})
				if err != nil {
					return err
				}
				return c.print(contract, func(w io.Writer) error {
					text := fmt.Sprintf("%s lends %s until %s", contract.GetSpec().GetLender(), orNothing(amounts(contract.GetLent())), closing(contract))
					if before.GetClosesAt() != nil {
						text += ", extended from " + moment(before.GetClosesAt())
					}
					_, err := fmt.Fprintln(w, text)
					return err
				})
			})
		},
	}
	cmd.Flags().DurationVar(&length, "for", 0, "how long the window is open")
	must(cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{"30m", "1h", "8h"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func orNothing(text string) string {
	if text == "" {
		return "nothing, as there are no nodes,"
	}
	return text
}

func (c *lendingCommands) lendStopCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "stop NAME",
		Short:             "End a contract's open window: what is lent is handed back",
		Args:              names("the name of a contract"),
		ValidArgsFunction: firstArgument(c.completeContracts),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				contract, err := z.lending.StopLending(cmd.Context(), &apiv1.GetContractRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return c.print(contract, func(w io.Writer) error {
					text := fmt.Sprintf("nothing of contract %s is lent any more", args[0])
					if contract.GetState() == apiv1.Contract_RETURNING {
						text = fmt.Sprintf("%s has all of its guarantee back by %s", contract.GetSpec().GetLender(), moment(contract.GetClosesAt()))
					}
					_, err := fmt.Fprintln(w, text)
					return err
				})
			})
		},
	}
}

func (c *lendingCommands) lendReportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "report",
		Short: "Tell what lending came to: lent, used, stopped, lost, and hand-back against promise",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				report, err := z.lending.GetReport(cmd.Context(), &apiv1.GetReportRequest{})
				if err != nil {
					return err
				}
				return c.print(report, func(w io.Writer) error { return reportTable(w, report) })
			})
		},
	}
}

func reportTable(w io.Writer, report *apiv1.LendingReport) error {
	t := newTable(w, "NAME", "STATE", "LENT", "USED", "RETURNED", "GIVEN BACK", "STOPPED", "LOST", "IN TIME", "SLOWEST")
	for _, k := range report.GetContracts() {
		ledger := k.GetLedger()
		slowest := ""
		if took := k.GetSlowestHandBack(); took != nil {
			slowest = early(took.AsDuration())
		}
		t.row(k.GetName(), word(k.GetState()), coreHours(ledger.GetLentCoreSeconds()), coreHours(ledger.GetUsedCoreSeconds()),
			coreHours(ledger.GetReturnedCoreSeconds()), ledger.GetReturnedContainers(), ledger.GetStoppedContainers(),
			fmt.Sprintf("%s (%.1f%%)", coreHours(ledger.GetLostCoreSeconds()), k.GetLostPercent()),
			fmt.Sprintf("%d/%d", k.GetHandBacksKept(), k.GetHandBacks()), orDash(slowest))
	}
	err := t.Flush()
	if len(report.GetContracts()) > 0 {
		_, writing := fmt.Fprintln(w, "lent, used, returned and lost are core-hours, given back and stopped are containers")
		err = errors.Join(err, writing)
	}
	return err
}

// early compares a hand-back with its deadline.
func early(took time.Duration) string {
	if took <= 0 {
		return short(-took) + " early"
	}
	return short(took) + " late"
}
