package recording_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/peer"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/recording"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

var began = time.Unix(1_700_000_000, 0)

// turns is how many turns a recording of these tests has. Package test/world has an hour of a whole zone recorded and replayed.
const turns = 60

// aMinute is the recording of a minute with a node and an app, and the zone at its end.
func aMinute(t *testing.T, most int64) (string, *zone.Core, error) {
	t.Helper()
	var to bytes.Buffer
	w := recording.NewWriter(&to, most)
	memory := store.OpenMemory(&store.Disk{}, store.Options{Now: began, EventRetention: 10})
	core, _, err := w.Load(memory, zone.Start{Settings: zone.Settings{Name: "test", NodeTimeout: 10 * time.Second, ReportInterval: time.Second}, Now: began})
	if err != nil {
		t.Fatal(err)
	}
	root := peer.User{Name: "root", Operator: true}
	spec := &apiv1.AppSpec{Name: "web", Queue: "default", Roles: []*apiv1.RoleSpec{{
		Image: "web:1", Instances: 3, Resources: &corev1.Resources{CpuMillis: 500, MemoryBytes: 64 << 20, DiskBytes: 64 << 20},
	}}}
	for second := range turns {
		now := began.Add(time.Duration(second) * time.Second)
		seed := zone.Seed{byte(second), byte(second >> 8)}
		w.Begin(now, seed)
		core.Begin(now, seed)
		inputs := []zone.Input{zone.Beats{}}
		switch second {
		case 10:
			inputs = append(inputs, zone.Deploy{Who: root, Request: &apiv1.DeployRequest{Spec: spec, IfGeneration: -1}})
		case 20:
			inputs = append(inputs, zone.RegisterNode{Who: root, Request: &trackerv1.RegisterRequest{
				NodeId: "node-1", Address: "10.0.0.1", ContainerManager: "10.0.0.1:7071", Health: &corev1.NodeHealth{Healthy: true},
				Capacity: &corev1.Resources{CpuMillis: 4000, MemoryBytes: 4 << 30, DiskBytes: 40 << 30},
			}})
		case 30:
			inputs = append(inputs, zone.RestartApp{AppRequest: zone.AppRequest{Who: root, App: "shop"}})
		case 40:
			inputs = append(inputs, zone.RemoveApp{AppRequest: zone.AppRequest{Who: root, App: "web"}})
		}
		for _, in := range inputs {
			w.Input(in)
			answer, err := core.Step(in)
			if err != nil && second != 30 {
				t.Fatalf("%+v: %v", in, err)
			}
			w.Answer(answer, err)
		}
		out, err := core.Ready()
		if err != nil {
			t.Fatal(err)
		}
		w.Ready(out)
	}
	return to.String(), core, w.Err()
}

// replay returns the numbers of the turns whose decisions differ.
func replay(recorded string) (played recording.Played, others []int, err error) {
	played, err = recording.Replay(strings.NewReader(recorded), func(turn recording.Turn) error {
		if !turn.Same {
			others = append(others, turn.Number)
		}
		return nil
	})
	return played, others, err
}

func TestARecordingDecidesTheSame(t *testing.T) {
	recorded, core, err := aMinute(t, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	played, others, err := replay(recorded)
	if err != nil || played.Turns != turns || played.Inputs != turns+4 || len(others) > 0 || !played.Until.Equal(began.Add((turns-1)*time.Second)) {
		t.Fatalf("%d turns with %d inputs until %v, those that differ are %v, %v", played.Turns, played.Inputs, played.Until, others, err)
	}
	for what, of := range map[string]func(*zone.Core) any{
		"the zone": func(z *zone.Core) any { return z.Summary().String() },
		"nodes":    func(z *zone.Core) any { return fmt.Sprint(z.Nodes()) },
		"lending":  func(z *zone.Core) any { return fmt.Sprint(z.LendingReport()) },
	} {
		if got, want := of(played.Zone), of(core); got != want {
			t.Errorf("%s in the end: %v, want %v", what, got, want)
		}
	}
}

// Whatever a turn was given, a change of it shows in what is decided.
func TestAnotherInputIsNoticed(t *testing.T) {
	recorded, _, err := aMinute(t, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(recorded, "\n")
	for n, l := range lines {
		if strings.Contains(l, `"kind":"Deploy"`) {
			lines[n] = ""
		}
	}
	if played, others, err := replay(strings.Join(lines, "")); err != nil || len(others) == 0 || others[0] != 11 || played.FirstOther != 11 || played.Others != len(others) {
		t.Errorf("without the deployment the turns that differ are %v, %v", others, err)
	}
}

// Some inputs decide nothing, and are only answered: with a value or with an error.
func TestAnotherAnswerIsNoticed(t *testing.T) {
	recorded, _, err := aMinute(t, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]struct{ from, to string }{
		"the error of an input":  {`"App":"shop"`, `"App":"soap"`},
		"an answer that is lost": {`"answers":"`, `"answers":"00`},
	} {
		changed := strings.Replace(recorded, change.from, change.to, 1)
		if changed == recorded {
			t.Errorf("%s: nothing of the kind is recorded", what)
		}
		if _, others, err := replay(changed); err != nil || len(others) != 1 {
			t.Errorf("%s: the turns that differ are %v, %v", what, others, err)
		}
	}
}

func TestEveryAnswerCounts(t *testing.T) {
	type answer struct {
		value any
		err   error
	}
	digests := map[string]answer{}
	for _, a := range []answer{
		{nil, nil},
		{&apiv1.App{Name: "web"}, nil},
		{&apiv1.App{Name: "web", Generation: 1}, nil},
		{nil, errors.New("no app is named web")},
		{nil, fmt.Errorf("no app is named web: %w", errdefs.ErrNotFound)},
		{nil, fmt.Errorf("no app is named web: %w", errdefs.ErrAborted)},
	} {
		var to bytes.Buffer
		w := recording.NewWriter(&to, 1<<20)
		w.Begin(began, zone.Seed{})
		w.Answer(a.value, a.err)
		w.Ready(&zone.Ready{})
		if err := w.Err(); err != nil {
			t.Fatal(err)
		}
		if same, ok := digests[to.String()]; ok {
			t.Errorf("the answer %+v is recorded as %+v", a, same)
		}
		digests[to.String()] = a
	}
}

// A recording may end within a turn, when the program ended.
func TestARecordingMayEndAnywhere(t *testing.T) {
	recorded, _, err := aMinute(t, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	first := strings.IndexByte(recorded, '\n') + 1
	for _, length := range []int{first, first + 1, len(recorded) / 2, len(recorded)/2 + 37, len(recorded) - 1} {
		if _, others, err := replay(recorded[:length]); err != nil || len(others) > 0 {
			t.Errorf("the first %d bytes: turns that differ are %v, %v", length, others, err)
		}
	}
}

func TestWhatIsNoRecordingIsSaidSo(t *testing.T) {
	recorded, _, err := aMinute(t, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(recorded, "\n")
	for text, want := range map[string]string{
		"":                                   "the recording is empty",
		"hello\n":                            "line 1: this is not a line of a recording",
		rest:                                 "line 1: this is not a recording: its first line is not the start of a zone",
		recorded + `{"kind":"Guess"}` + "\n": `"Guess" is no kind of input: the recording is of another version of the program`,
	} {
		if _, _, err := replay(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
}

func TestARecordingEndsAtItsBound(t *testing.T) {
	recorded, _, err := aMinute(t, 10_000)
	if err == nil || !strings.Contains(err.Error(), "as long as it may be") || len(recorded) > 10_000 {
		t.Errorf("%d bytes, %v", len(recorded), err)
	}
	if _, others, err := replay(recorded); err != nil || len(others) > 0 {
		t.Errorf("what there is differs in %v, %v", others, err)
	}
}

// Every kind of input comes back as it was written.
func TestEveryKindOfInputIsRecorded(t *testing.T) {
	for _, empty := range zone.Inputs() {
		in := reflect.New(reflect.TypeOf(empty)).Elem()
		fill(t, in)
		raw, err := recording.Encode(in.Interface())
		if err != nil {
			t.Fatalf("%T: %v", empty, err)
		}
		back := reflect.New(in.Type()).Elem()
		if err := recording.Decode(raw, back); err != nil {
			t.Fatalf("%T: %v", empty, err)
		}
		again, err := recording.Encode(back.Interface())
		if err != nil || !bytes.Equal(raw, again) || in.NumField() > 0 && string(raw) == "{}" {
			t.Errorf("%T: %s comes back as %s, %v", empty, raw, again, err)
		}
	}
}

// fill gives every field a value.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(began.Add(5 * time.Nanosecond)))
		return
	}
	if v.Type() == reflect.TypeFor[*timestamppb.Timestamp]() {
		v.Set(reflect.ValueOf(timestamppb.New(began)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("text \"quoted\" \x1b")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64, reflect.Int:
		v.SetInt(1<<31 - 1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(t, v.Index(i))
		}
	default:
		t.Fatalf("nobody fills a %v", v.Type())
	}
}

// The list of the kinds is complete: what is not in it could be recorded, and not played back.
func TestTheListOfInputsIsComplete(t *testing.T) {
	files, err := filepath.Glob("../zone/*.go")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, in := range zone.Inputs() {
		listed[reflect.TypeOf(in).Name()] = true
	}
	found := 0
	step := regexp.MustCompile(`(?m)^func \((?:\w+ )?(\w+)\) step\(`)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range step.FindAllStringSubmatch(string(text), -1) {
			if found++; !listed[match[1]] {
				t.Errorf("%s is no kind that Inputs lists", match[1])
			}
		}
	}
	if found != len(listed) {
		t.Errorf("%d kinds are listed, and there are %d", len(listed), found)
	}
}
