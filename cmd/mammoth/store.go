package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mammoth-os/mammoth/internal/notes"
	"github.com/mammoth-os/mammoth/internal/records"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// storeCommands examine and repair stores of this machine, and accept what a zone has lost.
type storeCommands struct {
	*dialer
	*printer
}

func (c *storeCommands) storeCommand() *cobra.Command {
	return group("store", "Look at, repair and accept a damaged store", c.storeCheckCommand(), c.storeRepairCommand(), c.storeAcceptCommand())
}

// managerFolder is the ResourceManager's folder in that of a whole zone.
const managerFolder = "resourcemanager"

// storeFolder is one store below a folder.
type storeFolder struct {
	dir string
	// node is true for a NodeManager's store.
	node bool
	// known is the expected store; zero if unknown.
	known records.ID
}

// storesBelow finds the stores of a daemon's folder or of a whole zone's, or the store in the folder itself.
func storesBelow(dir string) ([]storeFolder, error) {
	dir = absolute(dir)
	if filepath.Base(dir) == store.FolderName {
		dir = filepath.Dir(dir)
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, plainPathError(err)
	}
	var found []storeFolder
	add := func(folder, noted string) {
		one := storeFolder{dir: filepath.Join(folder, store.FolderName), known: notedStore(noted)}
		one.node = notes.Exist(filepath.Join(folder, nodeFile))
		if _, err := os.Stat(one.dir); err == nil || one.known != (records.ID{}) {
			found = append(found, one)
		}
	}
	noted := filepath.Join(dir, zoneFile)
	if filepath.Base(dir) == managerFolder && notedStore(noted) == (records.ID{}) {
		noted = filepath.Join(filepath.Dir(dir), upFile)
	}
	add(dir, noted)
	add(filepath.Join(dir, managerFolder), filepath.Join(dir, upFile))
	nodes, err := filepath.Glob(filepath.Join(dir, "node-*"))
	if err != nil {
		return nil, fmt.Errorf("look into %s: %w", dir, err)
	}
	for _, node := range nodes {
		add(node, "")
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s is not the folder of a zone, a ResourceManager or a NodeManager: there is no store in it", dir)
	}
	return found, nil
}

// notedStore is the store in a folder's notes; zero if there is none.
func notedStore(path string) (known records.ID) {
	var noted zoneNotes
	if notes.Read(path, &noted) == nil {
		known, _ = records.ParseID(noted.Store)
	}
	return known
}

// storeView is a store in the form of the output.
type storeView struct {
	Dir, State   string
	Records      int
	Damage, Lost []string
}

func viewStore(report *records.Report, lost []string) storeView {
	view := storeView{Dir: report.Dir, State: "whole", Records: report.Records, Damage: report.Sentences(), Lost: lost}
	switch {
	case report.Lossy():
		view.State = "records are lost"
	case report.Damaged():
		view.State = "damaged, nothing is lost"
	}
	return view
}

func (v storeView) write(w io.Writer) {
	fmt.Fprintf(w, "%s: %s, %s\n", v.Dir, v.State, plural(v.Records, "record"))
	for _, damage := range v.Damage {
		fmt.Fprintf(w, "  damage: %s\n", damage)
	}
	for _, lost := range v.Lost {
		fmt.Fprintf(w, "  lost: %s\n", lost)
	}
}

func (c *storeCommands) storeCheckCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look at every byte of the stores in a folder",
		Long: `Check looks at every byte of the stores in the folder of a zone, a ResourceManager or a
NodeManager, and says what is damaged and which records are gone with it. It changes nothing.
The daemon must be stopped; what runs on the nodes goes on running. Exit code 1 if anything is
damaged.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			stores, err := storesBelow(dir)
			if err != nil {
				return err
			}
			var views []storeView
			bad := 0
			for _, one := range stores {
				report, lost, err := store.Examine(one.dir, one.known)
				if err != nil {
					return err
				}
				if report.Damaged() {
					bad++
				}
				views = append(views, viewStore(report, lost))
			}
			if err := c.printStores(views); err != nil {
				return err
			}
			if bad > 0 {
				return fmt.Errorf("%s damaged; restore the folder from a backup, or mend what is there with `mammoth store repair --dir %s`", isAre(bad, "store"), quoted(dir))
			}
			return nil
		},
	}
	storeDirFlag(cmd, &dir)
	return cmd
}

func isAre(n int, what string) string {
	if n == 1 {
		return "1 " + what + " is"
	}
	return plural(n, what) + " are"
}

func storeDirFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "dir", "/var/lib/mammoth", "the folder of a zone, a ResourceManager or a NodeManager")
	must(cmd.MarkFlagDirname("dir"))
}

func (c *storeCommands) printStores(views []storeView) error {
	var stores []any
	for _, view := range views {
		stores = append(stores, map[string]any{
			"dir": view.Dir, "state": view.State, "records": view.Records, "damage": anys(view.Damage), "lost": anys(view.Lost),
		})
	}
	message, err := structpb.NewStruct(map[string]any{"stores": stores})
	if err != nil {
		return fmt.Errorf("encode what was found: %w", err)
	}
	return c.print(message, func(w io.Writer) error {
		for _, view := range views {
			view.write(w)
		}
		return nil
	})
}

func anys(texts []string) []any {
	all := []any{}
	for _, text := range texts {
		all = append(all, text)
	}
	return all
}

func (c *storeCommands) storeRepairCommand() *cobra.Command {
	var dir string
	var accept bool
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Repair damaged stores with what can be read",
		Long: `Repair builds a complete store from what can be read of each damaged one in a folder, and keeps the
damaged files beside it. If records are lost, it lists them as far as they are known, and
repairs only with --accept-loss.

A zone that has lost records waits after its next start: it ends and grants no container
until "mammoth store accept".`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			stores, err := storesBelow(dir)
			if err != nil {
				return err
			}
			var refused []error
			for _, one := range stores {
				if err := c.repairStore(one, accept); err != nil {
					refused = append(refused, err)
				}
			}
			return errors.Join(refused...)
		},
	}
	storeDirFlag(cmd, &dir)
	cmd.Flags().BoolVar(&accept, "accept-loss", false, "repair also where records are lost")
	return cmd
}

func (c *storeCommands) repairStore(one storeFolder, accept bool) error {
	report, lost, err := store.Examine(one.dir, one.known)
	if err != nil {
		return err
	}
	viewStore(report, lost).write(c.out)
	switch {
	case !report.Damaged():
		return nil
	case report.Lossy() && !accept:
		return fmt.Errorf("%s was left as it is, since records are lost; a backup may have them, and --accept-loss repairs it without them", one.dir)
	}
	repair := store.Repair
	if one.node {
		repair = repairNode
	}
	kept, err := repair(one.dir, one.known, time.Now())
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s: repaired; the damaged files are in %s\n", one.dir, kept)
	if report.Lossy() && !one.node {
		fmt.Fprintln(c.out, "start the ResourceManager: it ends nothing and grants nothing until `mammoth store accept`; `mammoth node show` lists containers without a record")
	}
	return nil
}

// repairNode adds no notes: a node's containers are found by their labels, and the ResourceManager decides which stay.
func repairNode(dir string, known records.ID, _ time.Time) (string, error) {
	return records.Repair(dir, records.Repairing{Known: known})
}

func (c *storeCommands) storeAcceptCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "accept",
		Short: "Let a zone continue that has lost records",
		Long: `Accept confirms that lost records stay lost. The zone, which waits until then,
continues with what it has, and ends the containers without a record; "mammoth node show" lists
them before. First deploy what is missing, and scale what is out of date.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				answer, err := z.zones.AcceptLoss(cmd.Context(), &apiv1.AcceptLossRequest{})
				if err != nil {
					return err
				}
				return c.print(answer, func(w io.Writer) error { return acceptedText(w, answer) })
			})
		},
	}
}

func acceptedText(w io.Writer, answer *apiv1.AcceptLossResponse) error {
	if len(answer.GetLosses()) == 0 && len(answer.GetEnded()) == 0 {
		_, err := fmt.Fprintln(w, "the zone has lost nothing")
		return err
	}
	for _, lost := range answer.GetLosses() {
		fmt.Fprintf(w, "lost: %s\n", lost)
	}
	_, err := fmt.Fprintf(w, "the zone continues; %s without a record %s ended\n", plural(len(answer.GetEnded()), "container"), verbIsAre(len(answer.GetEnded())))
	return err
}

func verbIsAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// warnOfLosses warns that a zone waits because of lost records, or accepts no changes.
func (p *printer) warnOfLosses(cmd *cobra.Command, z *zone) {
	about, err := z.zones.GetZone(cmd.Context(), &apiv1.GetZoneRequest{})
	if err != nil {
		return
	}
	if lost := about.GetLosses(); len(lost) > 0 {
		fmt.Fprintf(p.err, "mammoth: this zone has lost records (%s) and waits: nothing is started or ended until `mammoth store accept`\n", strings.Join(lost, "; "))
	}
	if about.GetFull() != "" {
		fmt.Fprintf(p.err, "mammoth: %s\n", about.GetFull())
	}
}
