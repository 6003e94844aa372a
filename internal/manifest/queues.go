package manifest

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// Root is the name of the root queue, the parent of all queues without another parent.
const Root = "root"

var queueStates = map[string]apiv1.QueueSpec_State{
	"running": apiv1.QueueSpec_RUNNING, "draining": apiv1.QueueSpec_DRAINING, "stopped": apiv1.QueueSpec_STOPPED,
}

var queueOrders = map[string]apiv1.QueueSpec_Order{"fifo": apiv1.QueueSpec_FIFO, "fair": apiv1.QueueSpec_FAIR}

// ParseQueues reads a zone's whole queue tree:
//
//	queues:
//	  - {name: apps, guaranteed: 60%, maximum: 100%}
//	  - {name: batch, guaranteed: {cpu: 4, memory: 8GiB}, maxApps: 20}
//
// A queue without a parent is a child of "root", which is added when the file does not have it. The error is of type Errors. The
// zone checks what depends on its state, for example whether an app would lose its queue.
func ParseQueues(data []byte) ([]*apiv1.QueueSpec, error) {
	d := &decoder{}
	root := d.document(data, "one queue tree")
	if root == nil || refuseOther(d, root, queueFile) {
		return nil, d.err()
	}
	read := &tree{lines: map[string]*yaml.Node{}}
	present := d.object(root, "a queue file", fields{"queues": readTree(d, read)})
	d.require(root, present, "the queue file", "queues")
	completeTree(d, read)
	return read.queues, d.err()
}

// Declaration is the content of a queue file.
type Declaration struct {
	Queues []*apiv1.QueueSpec
	// Contracts are empty if the file has no lending.
	Contracts []*apiv1.ContractSpec
}

// ParseDeclaration reads a queue file in which lending contracts may stand beside the queue tree, as ParseQueues and
// ParseLending read them. The error is of type Errors.
func ParseDeclaration(data []byte) (Declaration, error) {
	d := &decoder{}
	root := d.document(data, "one queue tree")
	if root == nil || refuseOther(d, root, queueFile) {
		return Declaration{}, d.err()
	}
	read, declared := &tree{lines: map[string]*yaml.Node{}}, Declaration{}
	present := d.object(root, "a queue file", fields{"queues": readTree(d, read), "lending": readContracts(d, &declared.Contracts)})
	d.require(root, present, "the queue file", "queues")
	completeTree(d, read)
	declared.Queues = read.queues
	return declared, d.err()
}

// tree is a queue tree with the line of each queue.
type tree struct {
	queues []*apiv1.QueueSpec
	lines  map[string]*yaml.Node
}

func readTree(d *decoder, into *tree) rule {
	return func(n *yaml.Node) {
		d.list(n, "queues", func(n *yaml.Node) {
			queue := readQueue(d, n)
			if first := into.lines[queue.Name]; first != nil && queue.Name != "" {
				d.fail(n, "queue %q is given twice; the first is in line %d", queue.Name, first.Line)
			}
			into.lines[queue.Name] = n
			into.queues = append(into.queues, queue)
		})
	}
}

// completeTree adds the root if the tree does not have it, and checks the tree as a whole.
func completeTree(d *decoder, t *tree) {
	if t.lines[Root] == nil {
		t.queues = append([]*apiv1.QueueSpec{{Name: Root}}, t.queues...)
	}
	for _, queue := range t.queues {
		if queue.Parent != "" && queue.Parent != Root && t.lines[queue.Parent] == nil {
			d.fail(t.lines[queue.Name], "queue %q has the parent %q, which is not in the file", queue.Name, queue.Parent)
		}
	}
	if d.mistakes() == 0 {
		checkTree(d, t.queues, t.lines)
	}
}

func readQueue(d *decoder, n *yaml.Node) *apiv1.QueueSpec {
	q := &apiv1.QueueSpec{}
	present := d.object(n, "a queue", fields{
		"name":             d.text("name", &q.Name, checkQueueName),
		"parent":           d.text("parent", &q.Parent, checkQueueName),
		"guaranteed":       func(n *yaml.Node) { q.Guaranteed = readCapacity(d, n, "guaranteed") },
		"maximum":          func(n *yaml.Node) { q.Maximum = readCapacity(d, n, "maximum") },
		"state":            choice(d, "state", queueStates, &q.State),
		"order":            choice(d, "order", queueOrders, &q.Order),
		"maxApps":          d.integer("maxApps", 0, 1_000_000, func(n int64) { q.MaxApps = int32(n) }),
		"maxMasterPercent": d.number("maxMasterPercent", 0, 100, &q.MaxMasterPercent),
		"userLimitPercent": d.number("userLimitPercent", 0, 100, &q.UserLimitPercent),
		"submit":           d.texts("submit", &q.Submit),
		"admin":            d.texts("admin", &q.Admin),
		"notice":           d.duration("notice", &q.Notice),
	})
	d.require(n, present, "the queue", "name")
	switch {
	case q.Name == Root && q.Parent != "":
		d.fail(n, "the queue %q is the root of the tree and cannot have a parent", Root)
	case q.Name != Root && q.Parent == "":
		q.Parent = Root
	}
	return q
}

// checkTree reports cycles of parents, and guarantees that exceed the parent's or a maximum.
func checkTree(d *decoder, queues []*apiv1.QueueSpec, lines map[string]*yaml.Node) {
	byName := map[string]*apiv1.QueueSpec{}
	for _, queue := range queues {
		byName[queue.Name] = queue
	}
	given := map[string]*apiv1.Capacity{}
	for _, queue := range queues {
		above := byName[queue.Parent]
		for range queues {
			if above == nil || above == queue {
				break
			}
			above = byName[above.Parent]
		}
		if above != nil {
			d.fail(lines[queue.Name], "queue %q is its own ancestor; change its parent", queue.Name)
			continue
		}
		if most := queue.Maximum; most != nil {
			if over := exceeds(queue.Guaranteed, most); over != "" {
				d.fail(lines[queue.Name], "queue %q is guaranteed more than its maximum: %s", queue.Name, over)
			}
		}
		if queue.Parent == "" || queue.Guaranteed == nil {
			continue
		}
		sum := addCapacity(given[queue.Parent], queue.Guaranteed)
		given[queue.Parent] = sum
		most := &apiv1.Capacity{Percent: new(float64)}
		*most.Percent = 100
		if queue.Guaranteed.Percent == nil {
			most = byName[queue.Parent].Guaranteed
		}
		if over := exceeds(sum, most); over != "" {
			d.fail(lines[queue.Name], "with queue %q, the guarantees below %q add up to more than it has: %s", queue.Name, queue.Parent, over)
		}
	}
}

func addCapacity(a, b *apiv1.Capacity) *apiv1.Capacity {
	sum := &apiv1.Capacity{Absolute: &corev1.Resources{
		CpuMillis:   a.GetAbsolute().GetCpuMillis() + b.GetAbsolute().GetCpuMillis(),
		MemoryBytes: a.GetAbsolute().GetMemoryBytes() + b.GetAbsolute().GetMemoryBytes(),
		DiskBytes:   a.GetAbsolute().GetDiskBytes() + b.GetAbsolute().GetDiskBytes(),
	}}
	if percent := a.GetPercent() + b.GetPercent(); percent > 0 {
		sum.Percent = &percent
	}
	return sum
}

// exceeds describes how a capacity exceeds another, empty if it does not. A share and an amount cannot be compared without the
// zone. A resource that most does not name is unlimited.
func exceeds(c, most *apiv1.Capacity) string {
	// Sums of percentages as in 33.3 + 33.3 + 33.4 are not exact.
	if c.GetPercent() > most.GetPercent()+1e-9 && c != nil && c.Percent != nil && most.GetPercent() > 0 {
		return fmt.Sprintf("%g%% of %g%%", c.GetPercent(), most.GetPercent())
	}
	for _, each := range []struct {
		have, most int64
		name       string
		write      func(int64) string
	}{
		{c.GetAbsolute().GetCpuMillis(), most.GetAbsolute().GetCpuMillis(), "cpu", resource.FormatCPU},
		{c.GetAbsolute().GetMemoryBytes(), most.GetAbsolute().GetMemoryBytes(), "memory", resource.FormatBytes},
		{c.GetAbsolute().GetDiskBytes(), most.GetAbsolute().GetDiskBytes(), "disk", resource.FormatBytes},
	} {
		if each.most > 0 && each.have > each.most {
			return fmt.Sprintf("%s %s of %s", each.write(each.have), each.name, each.write(each.most))
		}
	}
	return ""
}

// readCapacity decodes 30% or {cpu: 4, memory: 8GiB, disk: 100GiB}.
func readCapacity(d *decoder, n *yaml.Node, what string) *apiv1.Capacity {
	if n.Kind == yaml.MappingNode {
		absolute := &corev1.Resources{}
		d.object(n, what, fields{
			"cpu":      d.quantity("cpu", resource.ParseCPU, &absolute.CpuMillis),
			"memory":   d.quantity("memory", resource.ParseBytes, &absolute.MemoryBytes),
			"disk":     d.quantity("disk", resource.ParseBytes, &absolute.DiskBytes),
			"ports":    d.integer("ports", 0, 1<<40, func(n int64) { absolute.Ports = n }),
			"extended": readExtended(d, absolute),
		})
		return &apiv1.Capacity{Absolute: absolute}
	}
	number, isPercent := strings.CutSuffix(n.Value, "%")
	percent, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if n.Kind != yaml.ScalarNode || !isPercent || err != nil || !(percent >= 0 && percent <= 100) {
		d.fail(n, "%s must be a share as in 30%%, between 0%% and 100%%, or amounts as in {cpu: 4, memory: 8GiB}, not %s", what, kindOf(n))
		return nil
	}
	return &apiv1.Capacity{Percent: &percent}
}

func checkQueueName(name string) error { return spec.CheckQueueName("a queue", name) }
