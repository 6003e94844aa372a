package scheduler

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/resource"
)

// TestTranscripts replays testdata/transcripts: each file shows one rule of the scheduler as commands and their results.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcripts", func(t *testing.T, path string) {
		s := newStage()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			answer := s.run(t, d)
			if err := verify(s.core, d.Cmd == "schedule"); err != nil {
				t.Fatalf("%s: %v", d.Pos, err)
			}
			return answer
		})
	})
}

// stage is a core and the names that a transcript uses.
type stage struct {
	core   *Core
	apps   map[string]id.App
	titles map[id.App]string
	schema resource.Schema
	// now is when the last pass was.
	now time.Time
}

func newStage() *stage {
	schema, _, _ := resource.Schema{}.With("gpu")
	return &stage{
		core: New(Config{Epoch: 1, Schema: schema, Master: resource.Vector{100, 64 << 20}}), schema: schema, now: start,
		apps: map[string]id.App{}, titles: map[id.App]string{},
	}
}

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (s *stage) run(t *testing.T, d *datadriven.TestData) string {
	var err error
	switch d.Cmd {
	case "queues":
		var specs []QueueSpec
		for line := range strings.Lines(d.Input) {
			specs = append(specs, s.queue(t, strings.Fields(line)))
		}
		err = s.core.Apply(SetQueues{Queues: specs})
	case "contracts":
		var specs []Contract
		for line := range strings.Lines(d.Input) {
			specs = append(specs, contractSpec(t, strings.Fields(line)))
		}
		err = s.core.Apply(SetContracts{Contracts: specs})
	case "ledger":
		return s.ledger()
	case "checkpoint":
		err = s.core.Apply(Checkpoint{Container: s.container(t, d.CmdArgs[0].Key), At: start.Add(duration(t, d.CmdArgs[1].Key))})
	case "node":
		err = s.core.Apply(SetNode{Node: s.node(t, d)})
	case "remove-node":
		err = s.core.Apply(RemoveNode{Node: id.Node(d.CmdArgs[0].Key)})
	case "app":
		name := d.CmdArgs[0].Key
		in := AddApp{App: s.app(name), Name: name, Queue: "default"}
		for _, arg := range d.CmdArgs[1:] {
			switch arg.Key {
			case "queue":
				in.Queue = id.Queue(arg.Vals[0])
			case "user":
				in.User = arg.Vals[0]
			case "priority":
				in.Priority = int32(number(t, arg.Vals[0]))
			case "recovered":
				in.Recovered = true
			default:
				t.Fatalf("%s: unknown argument %s", d.Pos, arg.Key)
			}
		}
		err = s.core.Apply(in)
	case "remove-app":
		err = s.core.Apply(RemoveApp{App: s.app(d.CmdArgs[0].Key)})
	case "ask":
		err = s.core.Apply(SetAsk{App: s.app(d.CmdArgs[0].Key), Ask: s.ask(t, d, d.CmdArgs[1:])})
	case "hold":
		err = s.core.Apply(s.hold(t, d))
	case "release":
		for _, arg := range d.CmdArgs {
			if err == nil {
				err = s.core.Apply(Release{Container: s.container(t, arg.Key)})
			}
		}
	case "schedule":
		return s.schedule(t, d)
	case "explain":
		return s.explain(s.core.Explain(s.app(d.CmdArgs[0].Key), s.now))
	case "plan":
		return s.plan(t, d)
	case "usage":
		return s.usage()
	default:
		t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
	}
	if err != nil {
		return err.Error()
	}
	return "ok"
}

func (s *stage) app(name string) id.App {
	app, ok := s.apps[name]
	if !ok {
		app = id.App{ClusterStart: 1, Seq: int64(len(s.apps) + 1)}
		s.apps[name], s.titles[app] = app, name
	}
	return app
}

// container reads "web/3" and "web/3@0", the third container of web, of epoch 1 or 0.
func (s *stage) container(t *testing.T, text string) id.Container {
	text, epoch, ok := strings.Cut(text, "@")
	if !ok {
		epoch = "1"
	}
	name, seq, _ := strings.Cut(text, "/")
	return id.Container{Epoch: number(t, epoch), App: s.app(name), Seq: number(t, seq)}
}

func (s *stage) title(ctr id.Container) string {
	return fmt.Sprintf("%s/%d", s.titles[ctr.App], ctr.Seq)
}

func number(t *testing.T, text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// quantity reads key=value into a vector and reports whether key is a resource.
func (s *stage) quantity(t *testing.T, v *resource.Vector, key, value string) bool {
	var err error
	switch key {
	case "cpu":
		v[resource.CPU], err = resource.ParseCPU(value)
	case "memory":
		v[resource.Memory], err = resource.ParseBytes(value)
	case "disk":
		v[resource.Disk], err = resource.ParseBytes(value)
	case "ports":
		v[resource.Ports] = number(t, value)
	default:
		dim, ok := s.schema.Index(key)
		if ok {
			v[dim] = number(t, value)
		}
		return ok
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

// capacity reads "30%" or "cpu:4,memory:8GiB".
func (s *stage) capacity(t *testing.T, text string) Capacity {
	if percent, ok := strings.CutSuffix(text, "%"); ok {
		value, err := strconv.ParseFloat(percent, 64)
		if err != nil {
			t.Fatal(err)
		}
		return Capacity{Percent: value, IsPercent: true}
	}
	var c Capacity
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(part, ":")
		s.quantity(t, &c.Absolute, key, value)
	}
	return c
}

func (s *stage) queue(t *testing.T, fields []string) QueueSpec {
	spec := QueueSpec{Name: id.Queue(fields[0])}
	for _, field := range fields[1:] {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "parent":
			spec.Parent = id.Queue(value)
		case "guaranteed":
			spec.Guaranteed = s.capacity(t, value)
		case "maximum":
			spec.Maximum = s.capacity(t, value)
		case "draining":
			spec.State = QueueDraining
		case "stopped":
			spec.State = QueueStopped
		case "fair":
			spec.Fair = true
		case "max-apps":
			spec.MaxApps = int(number(t, value))
		case "masters":
			spec.MaxMasterPercent = float64(number(t, value))
		case "user-limit":
			spec.UserLimitPercent = float64(number(t, value))
		case "notice":
			spec.Notice = duration(t, value)
		case "submit":
			spec.Submit = strings.Split(value, ",")
		case "admin":
			spec.Admin = strings.Split(value, ",")
		default:
			t.Fatalf("unknown field %s of a queue", key)
		}
	}
	return spec
}

func contractSpec(t *testing.T, fields []string) Contract {
	spec := Contract{Name: fields[0]}
	for _, field := range fields[1:] {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "lender":
			spec.Lender = id.Queue(value)
		case "borrowers":
			for name := range strings.SplitSeq(value, ",") {
				spec.Borrowers = append(spec.Borrowers, id.Queue(name))
			}
		case "lend":
			spec.LendPercent = float64(number(t, strings.TrimSuffix(value, "%")))
		case "floor":
			spec.FloorPercent = float64(number(t, strings.TrimSuffix(value, "%")))
		case "notice":
			spec.Notice = duration(t, value)
		case "grace":
			spec.Grace = duration(t, value)
		case "window":
			open, closes, _ := strings.Cut(value, "-")
			spec.Windows = append(spec.Windows, Window{start.Add(duration(t, open)), start.Add(duration(t, closes))})
		default:
			t.Fatalf("unknown field %s of a contract", key)
		}
	}
	return spec
}

func (s *stage) ledger() string {
	var b strings.Builder
	for _, l := range s.core.lending.ledgers() {
		state := "resting"
		if l.Open {
			state = fmt.Sprintf("open until %s, %s of %s cpu borrowed", l.Closing.Sub(start), resource.FormatCPU(l.Borrowed[resource.CPU]), resource.FormatCPU(l.Lent[resource.CPU]))
		}
		fmt.Fprintf(&b, "%s: %s; core-seconds lent %.0f, used %.0f, lost %.0f; %d stopped, %d returned\n", l.Contract, state, l.LentCoreSeconds, l.UsedCoreSeconds, l.LostCoreSeconds, l.Stopped, l.Returned)
		for _, back := range l.HandBacks {
			done := "never back"
			if !back.Done.IsZero() {
				done = fmt.Sprintf("back at %s", back.Done.Sub(start))
			}
			fmt.Fprintf(&b, "  promised at %s, %s, %d stopped, %d returned\n", back.Promised.Sub(start), done, back.Stopped, back.Returned)
		}
	}
	return b.String()
}

func (s *stage) node(t *testing.T, d *datadriven.TestData) NodeSpec {
	spec := NodeSpec{Name: id.Node(d.CmdArgs[0].Key), Attributes: map[string]Value{}}
	spec.Capacity[resource.Ports] = 100
	for _, arg := range d.CmdArgs[1:] {
		switch {
		case s.quantity(t, &spec.Capacity, arg.Key, arg.Vals[0]):
		case arg.Key == "closed":
			spec.Closed = strings.Join(arg.Vals, ", ")
		default:
			spec.Attributes[arg.Key] = constraintToken{text: arg.Vals[0]}.value()
		}
	}
	return spec
}

func (s *stage) ask(t *testing.T, d *datadriven.TestData, args []datadriven.CmdArg) Ask {
	spec := Ask{ID: "a", Pending: 1, Policy: Pack}
	for _, arg := range args {
		switch {
		case len(arg.Vals) > 0 && s.quantity(t, &spec.Resources, arg.Key, arg.Vals[0]):
			continue
		}
		switch arg.Key {
		case "id":
			spec.ID = arg.Vals[0]
		case "count":
			spec.Pending = int(number(t, arg.Vals[0]))
		case "priority":
			spec.Priority = int32(number(t, arg.Vals[0]))
		case "spread":
			spec.Policy = Spread
			if len(arg.Vals) > 0 {
				spec.SpreadOver = arg.Vals[0]
			}
		case "constraint":
			constraint, err := ParseConstraint(strings.Join(arg.Vals, ", "))
			if err != nil {
				t.Fatalf("%s: %v", d.Pos, err)
			}
			spec.Constraints = append(spec.Constraints, constraint)
		case "max-per-node":
			spec.MaxPerNode = int(number(t, arg.Vals[0]))
		case "group":
			spec.Group = arg.Vals[0]
		case "avoid":
			for _, name := range arg.Vals {
				spec.Avoid = append(spec.Avoid, id.Node(name))
			}
		case "near":
			spec.Affinity = arg.Vals
		case "far":
			spec.AntiAffinity = arg.Vals
		case "gang":
			spec.Gang = true
		case "service":
			spec.Service = true
		case "replaces":
			spec.Replaces = true
		case "master":
			spec.Master = true
		case "duration":
			spec.Duration = duration(t, arg.Vals[0])
		default:
			t.Fatalf("%s: unknown argument %s", d.Pos, arg.Key)
		}
	}
	return spec
}

func (s *stage) hold(t *testing.T, d *datadriven.TestData) Hold {
	in := Hold{Container: s.container(t, d.CmdArgs[0].Key), Ask: "a", StartedAt: start}
	for _, arg := range d.CmdArgs[1:] {
		switch {
		case len(arg.Vals) > 0 && s.quantity(t, &in.Resources, arg.Key, arg.Vals[0]):
		case arg.Key == "node":
			in.Node = id.Node(arg.Vals[0])
		case arg.Key == "master":
			in.Master = true
		case arg.Key == "service":
			in.Service = true
		case arg.Key == "started":
			in.StartedAt = start.Add(duration(t, arg.Vals[0]))
		case arg.Key == "duration":
			in.Duration = duration(t, arg.Vals[0])
		case arg.Key == "gang":
			in.Gang = number(t, arg.Vals[0])
		default:
			t.Fatalf("%s: unknown argument %s", d.Pos, arg.Key)
		}
	}
	return in
}

func duration(t *testing.T, text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (s *stage) schedule(t *testing.T, d *datadriven.TestData) string {
	if len(d.CmdArgs) > 0 {
		s.now = start.Add(duration(t, d.CmdArgs[0].Key))
	}
	var b strings.Builder
	decisions := s.core.Schedule(s.now)
	for _, grant := range decisions.Grants {
		fmt.Fprintf(&b, "grant %s on %s\n", s.title(grant.Container), grant.Node)
	}
	for _, k := range decisions.Cancelled {
		fmt.Fprintf(&b, "cancel preemption of %s\n", s.title(k))
	}
	for _, notice := range decisions.Notices {
		fmt.Fprintf(&b, "notice to %s: gone by %s: %s\n", s.title(notice.Container), notice.Deadline.Sub(start), notice.Reason)
	}
	for _, stop := range decisions.Stops {
		fmt.Fprintf(&b, "stop %s\n", s.title(stop.Container))
	}
	if !decisions.Next.IsZero() {
		fmt.Fprintf(&b, "again at %s\n", decisions.Next.Sub(start))
	}
	if b.Len() == 0 {
		return "nothing"
	}
	return b.String()
}

func (s *stage) explain(explanation Explanation) string {
	var b strings.Builder
	for _, ask := range explanation.Asks {
		s.explainAsk(&b, ask)
	}
	if b.Len() == 0 {
		return "nothing waits"
	}
	return b.String()
}

func (s *stage) explainAsk(b *strings.Builder, ask AskExplanation) {
	fmt.Fprintf(b, "%s: %d pending, fits on %d nodes\n", ask.Ask, ask.Pending, ask.Fits)
	if ask.Limit != "" {
		fmt.Fprintf(b, "  %s\n", ask.Limit)
	}
	if ask.Coming != "" {
		fmt.Fprintf(b, "  %s\n", ask.Coming)
	}
	for _, sentence := range []string{ask.Guarantee} {
		if sentence != "" {
			fmt.Fprintf(b, "  %s\n", sentence)
		}
	}
	for _, test := range ask.Tests {
		fmt.Fprintf(b, "  %d × %s (%s)\n", test.Nodes, test.Test, test.Example)
	}
}

func (s *stage) plan(t *testing.T, d *datadriven.TestData) string {
	spec := s.ask(t, d, d.CmdArgs[2:])
	plan, err := s.core.Plan(AddApp{Name: d.CmdArgs[0].Key, Queue: id.Queue(d.CmdArgs[1].Key)}, spec, s.now)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, node := range plan.Nodes {
		fmt.Fprintf(&b, "on %s\n", node)
	}
	if plan.Never != "" {
		fmt.Fprintf(&b, "never: %s\n", plan.Never)
	}
	if plan.Explanation.Pending > 0 {
		s.explainAsk(&b, plan.Explanation)
	}
	return b.String()
}

func (s *stage) usage() string {
	var b strings.Builder
	for _, q := range s.core.Queues() {
		part := func(v resource.Vector) string {
			return resource.FormatCPU(v[resource.CPU]) + "/" + resource.FormatBytes(v[resource.Memory])
		}
		fmt.Fprintf(&b, "%s: used %s of guaranteed %s, maximum %s; pending %s; %d apps, %d containers\n", q.Spec.Name,
			part(q.Used), part(q.Guaranteed), part(q.Maximum), part(q.Pending), q.Apps, q.Containers)
	}
	return b.String()
}
