package manifest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/spec/spectest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// The transcripts under testdata read as what a person writes and what is understood, or what is answered.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcripts", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "app":
				app, err := manifest.ParseApp([]byte(d.Input))
				if err != nil {
					return err.Error() + "\n"
				}
				return text(t, app.Spec)
			case "diff":
				return diff(t, d.Input)
			case "queues":
				queues, err := manifest.ParseQueues([]byte(d.Input))
				if err != nil {
					return err.Error() + "\n"
				}
				return text(t, &apiv1.SetQueuesRequest{Queues: queues})
			case "lending":
				contracts, err := manifest.ParseLending([]byte(d.Input))
				if err != nil {
					return err.Error() + "\n"
				}
				return text(t, &apiv1.AddContractsRequest{Contracts: contracts})
			case "framework":
				p, err := manifest.ParseFramework([]byte(d.Input))
				if err != nil {
					return err.Error() + "\n"
				}
				return text(t, p)
			case "line":
				name := d.CmdArgs[0].Key
				return fmt.Sprintln(manifest.LineOf([]byte(d.Input), name))
			case "health":
				check, err := manifest.ParseHealth(d.Input)
				if err != nil {
					return err.Error() + "\n"
				}
				return text(t, check)
			case "port":
				port, err := manifest.ParsePort(d.Input, 0)
				if err != nil {
					return err.Error() + "\n"
				}
				return text(t, port)
			}
			t.Fatalf("unknown command %q", d.Cmd)
			return ""
		})
	})
}

// diff is what changes between two manifests with "becomes" between them; nothing before it is an app that there is not yet.
func diff(t *testing.T, input string) string {
	t.Helper()
	before, after, _ := strings.Cut(input, "becomes\n")
	var specs [2]*apiv1.AppSpec
	for i, text := range []string{before, after} {
		if text == "" {
			continue
		}
		app, err := manifest.ParseApp([]byte(text))
		if err != nil {
			return err.Error() + "\n"
		}
		spec.Complete(app.Spec)
		specs[i] = app.Spec
	}
	var out strings.Builder
	print := func(fields []*apiv1.FieldDiff) {
		for _, field := range fields {
			fmt.Fprintf(&out, "  %s: %s → %s\n", field.GetKey(), field.GetBefore(), field.GetAfter())
		}
	}
	changes := manifest.Diff(specs[0], specs[1])
	fmt.Fprintf(&out, "differs: %v\n", manifest.Differs(changes))
	print(changes.GetFields())
	for _, role := range changes.GetRoles() {
		fmt.Fprintf(&out, "role %q: %s\n", role.GetRole(), role.GetEffect())
		print(role.GetFields())
	}
	return out.String()
}

func text(t *testing.T, message proto.Message) string {
	t.Helper()
	raw, err := protojson.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, raw, "", "  "); err != nil {
		t.Fatal(err)
	}
	return indented.String() + "\n"
}

func TestAHugeFileIsRefused(t *testing.T) {
	_, err := manifest.ParseApp([]byte("name: web\nimage: " + strings.Repeat("x", 1<<20)))
	if err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("got %v", err)
	}
}

// A manifest that is accepted is written back as a manifest that means the same; one that is refused says why.
func FuzzApp(f *testing.F) {
	example, err := os.ReadFile("testdata/web.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Add([]byte("name: zoo\nroles:\n  a: {image: a:1, health: http:/}\n  b: {image: b:1}\n"))
	f.Add([]byte("name: [a, &x b]\nimage: *x\n"))
	f.Add([]byte("name: web\nimage: web:1\nports: [80]\nexpose: {http: {hosts: [a.test], maxBody: 1KiB}, tcp: [{listen: 2000}], balance: hash, timeouts: {idle: 2s}}\nupdate: {exclusive: true, maxErrorPercent: 0.5}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		app, err := manifest.ParseApp(data)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("refused without a word")
			}
			return
		}
		written, err := manifest.FormatApp(app.Spec)
		if err != nil {
			t.Fatal(err)
		}
		again, err := manifest.ParseApp(written)
		if err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		if !proto.Equal(app.Spec, again.Spec) {
			t.Fatalf("%v\nwas written\n%s\nand read\n%v", app.Spec, written, again.Spec)
		}
	})
}

// Whatever the lending file, the answer is contracts of which each can lend, or a reason.
func FuzzLending(f *testing.F) {
	f.Add([]byte("lending:\n- {name: nightly, lender: apps, borrowers: [batch], lend: 60%, window: {cron: 0 22 * * *, duration: 9h}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		contracts, err := manifest.ParseLending(data)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("refused without a word")
			}
			return
		}
		for _, k := range contracts {
			if k.GetName() == "" || k.GetLender() == "" || len(k.GetBorrowers()) == 0 || !(k.GetLendPercent() > 0 && k.GetLendPercent()+k.GetFloorPercent() <= 100) {
				t.Fatalf("accepted %v", k)
			}
			if manifest.LineOf(data, k.GetName()) == 0 {
				t.Fatalf("%s stands in no line", k.GetName())
			}
		}
	})
}

// Whatever the queue file, the answer is a tree under one root or a reason.
func FuzzQueues(f *testing.F) {
	f.Add([]byte("queues:\n- {name: apps, guaranteed: 60%}\n- {name: batch, maximum: {cpu: 4, memory: 8GiB}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		queues, err := manifest.ParseQueues(data)
		if err != nil {
			return
		}
		roots := 0
		for _, queue := range queues {
			if queue.GetParent() == "" {
				roots++
			}
		}
		if roots != 1 {
			t.Fatalf("%d roots in %v", roots, queues)
		}
	})
}

// A declaration is one queue tree, whatever stands beside it: the same one as without its contracts.
func FuzzDeclaration(f *testing.F) {
	f.Add([]byte("queues: [{name: apps, guaranteed: 60%}, {name: batch}]\nlending: [{name: nightly, lender: apps, borrowers: [batch], lend: 50%}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		queues, err := manifest.ParseQueues(data)
		declared, derr := manifest.ParseDeclaration(data)
		if err != nil {
			return
		}
		if derr != nil || len(declared.Contracts) != 0 || !slices.EqualFunc(queues, declared.Queues, func(a, b *apiv1.QueueSpec) bool { return proto.Equal(a, b) }) {
			t.Fatalf("a queue file is %v, as a declaration %v, %v", queues, declared, derr)
		}
	})
}

func TestContractsStandBesideQueues(t *testing.T) {
	declared, err := manifest.ParseDeclaration([]byte("queues: [{name: apps, guaranteed: 60%}, {name: batch}]\nlending: [{name: nightly, lender: apps, borrowers: [batch], lend: 50%}]\n"))
	if err != nil || len(declared.Queues) != 3 || len(declared.Contracts) != 1 || declared.Contracts[0].GetLendPercent() != 50 {
		t.Errorf("got %v, %v", declared, err)
	}
	_, err = manifest.ParseDeclaration([]byte("queues: [{name: apps, guaranteed: 160%}]\nlending:\n- {name: nightly, lender: apps}\n"))
	var mistakes manifest.Errors
	if !errors.As(err, &mistakes) || mistakes[0].Line != 1 || mistakes[len(mistakes)-1].Line != 3 {
		t.Errorf("mistakes in both halves: %v", err)
	}
}

func TestAManifestIsRefusedWithTheSentenceThatEverybodyIsTold(t *testing.T) {
	for _, c := range spectest.Cases() {
		_, err := manifest.ParseApp([]byte(c.Manifest()))
		var errs manifest.Errors
		if !errors.As(err, &errs) || len(errs) != 1 || errs[0].Message != c.Sentence {
			t.Errorf("%s: %v, want %q", c.Name, err, c.Sentence)
		}
	}
}

func TestAManifestHasTheNamesThatEverybodyTakes(t *testing.T) {
	for name, sentence := range spectest.Names() {
		for what, text := range map[string]string{
			"an app": fmt.Sprintf("name: %s\nimage: web:1\n", name), "a role": fmt.Sprintf("name: web\nroles: {%s: {image: web:1}}\n", name),
		} {
			_, err := manifest.ParseApp([]byte(text))
			var errs manifest.Errors
			if want := fmt.Sprintf(sentence, what); !errors.As(err, &errs) || errs[0].Message != want {
				t.Errorf("%s named %q: %v, want %q", what, name, err, want)
			}
		}
	}
}
