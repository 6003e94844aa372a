package manifest

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/mammoth-os/mammoth/internal/cron"
	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// ParseLending reads lending contracts:
//
//	lending:
//	  - name: nightly
//	    lender: apps
//	    borrowers: [batch]
//	    window: {cron: "0 22 * * *", duration: 9h, timezone: Asia/Shanghai}
//	    lend: 60%
//	    floor: 25%
//	    notice: 2m
//
// The error is of type Errors. The zone checks that the queues exist.
func ParseLending(data []byte) ([]*apiv1.ContractSpec, error) {
	d := &decoder{}
	root := d.document(data, "a list of lending contracts")
	if root == nil || refuseOther(d, root, lendingFile) {
		return nil, d.err()
	}
	var contracts []*apiv1.ContractSpec
	present := d.object(root, "a lending file", fields{"lending": readContracts(d, &contracts)})
	d.require(root, present, "the lending file", "lending")
	return contracts, d.err()
}

func readContracts(d *decoder, into *[]*apiv1.ContractSpec) rule {
	return func(n *yaml.Node) {
		lines := map[string]int{}
		d.list(n, "lending", func(n *yaml.Node) {
			contract := readContract(d, n)
			if first, twice := lines[contract.Name]; twice && contract.Name != "" {
				d.fail(n, "contract %q is given twice; the first is in line %d", contract.Name, first)
			}
			lines[contract.Name] = n.Line
			*into = append(*into, contract)
		})
		if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
			d.fail(n, "lending has no contract")
		}
	}
}

func readContract(d *decoder, n *yaml.Node) *apiv1.ContractSpec {
	k := &apiv1.ContractSpec{}
	present := d.object(n, "a contract", fields{
		"name":   d.text("name", &k.Name, checkContractName),
		"lender": d.text("lender", &k.Lender, checkQueueName),
		"borrowers": func(n *yaml.Node) {
			d.list(n, "borrowers", func(n *yaml.Node) {
				var name string
				d.text("a borrower", &name, checkQueueName)(n)
				k.Borrowers = append(k.Borrowers, name)
			})
			if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
				d.fail(n, "borrowers is empty; a contract lends to at least one queue")
			}
		},
		"window": func(n *yaml.Node) { k.Window = readWindow(d, n) },
		"lend":   readPercent(d, "lend", &k.LendPercent),
		"floor":  readPercent(d, "floor", &k.FloorPercent),
		"notice": d.duration("notice", &k.Notice),
		"grace":  d.duration("grace", &k.Grace),
	})
	d.require(n, present, "the contract", "name", "lender", "borrowers", "lend")
	if list := present["borrowers"]; list != nil {
		for _, borrower := range list.Content {
			if borrower.Value == k.Lender && k.Lender != "" {
				d.fail(borrower, "queue %q lends to itself; lender and borrower must be two queues", k.Lender)
			}
		}
	}
	switch {
	case d.failedIn(n):
	case k.LendPercent == 0:
		d.fail(present["lend"], "lend must be more than 0%%")
	case k.LendPercent+k.FloorPercent > 100:
		d.fail(present["floor"], "lend and floor are %g%% together; they can be at most 100%% of the lender's guarantee", k.LendPercent+k.FloorPercent)
	}
	return k
}

func readWindow(d *decoder, n *yaml.Node) *apiv1.LendingWindow {
	w := &apiv1.LendingWindow{}
	present := d.object(n, "window", fields{
		"cron":     d.text("cron", &w.Cron, cron.Check),
		"duration": d.duration("duration", &w.Duration),
		"timezone": d.text("timezone", &w.Timezone, checkTimezone),
	})
	d.require(n, present, "the window", "cron", "duration")
	return w
}

// readPercent decodes a share such as 60%.
func readPercent(d *decoder, what string, into *float64) rule {
	return func(n *yaml.Node) {
		number, isPercent := strings.CutSuffix(n.Value, "%")
		value, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if n.Kind != yaml.ScalarNode || !isPercent || err != nil || !(value >= 0 && value <= 100) {
			d.fail(n, "%s must be a share as in 60%%, between 0%% and 100%%, not %s", what, kindOf(n))
			return
		}
		*into = value
	}
}

func checkContractName(name string) error { return spec.CheckQueueName("a contract", name) }

// LineOf is the line of a queue or lending file in which the entry with a name begins; zero if there is none.
func LineOf(data []byte, name string) int {
	d := &decoder{}
	root := d.document(data, "a file")
	if root == nil || root.Kind != yaml.MappingNode {
		return 0
	}
	for i := 1; i < len(root.Content); i += 2 {
		for _, entry := range root.Content[i].Content {
			for j := 0; j+1 < len(entry.Content); j += 2 {
				if entry.Content[j].Value == "name" && entry.Content[j+1].Value == name {
					return entry.Line
				}
			}
		}
	}
	return 0
}

// AtLine prefixes an error with the line of the entry of a queue or lending file that it names. An error that names none is
// returned unchanged.
func AtLine(data []byte, names []string, err error) error {
	text := wire.Sentence(err)
	for _, name := range names {
		if !Mentions(text, name) {
			continue
		}
		if line := LineOf(data, name); line > 0 {
			return fmt.Errorf("line %d: %w", line, err)
		}
	}
	return err
}
