package zookeeper

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

// testdata/NAME.endpoint.json is an endpoint of the registry, testdata/NAME.curator.json the entry in ZooKeeper.
func TestEncode(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.endpoint.json")
	if err != nil || len(inputs) < 4 {
		t.Fatalf("found %d golden pairs, %v", len(inputs), err)
	}
	for _, input := range inputs {
		t.Run(filepath.Base(input), func(t *testing.T) {
			text, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			endpoint := &apiv1.Endpoint{}
			if err := protojson.Unmarshal(text, endpoint); err != nil {
				t.Fatal(err)
			}
			entry := encode("east", "web", endpoint)
			if !isOurs("east", entry) || isOurs("west", entry) {
				t.Error("the entry does not say whose it is")
			}
			var got bytes.Buffer
			if err := json.Indent(&got, entry, "", "  "); err != nil {
				t.Fatal(err)
			}
			got.WriteByte('\n')
			want := strings.TrimSuffix(input, ".endpoint.json") + ".curator.json"
			if *update {
				if err := os.WriteFile(want, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			expected, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(expected), got.String()); diff != "" {
				t.Errorf("differs from %s (go test -update writes it anew):\n%s", want, diff)
			}
		})
	}
}

func TestForeignEntries(t *testing.T) {
	for _, entry := range []string{
		"", "null", "[]", "{}", "{", `{"payload":null}`, `{"payload":"mammoth/east"}`, `{"payload":{"managedBy":"mammoth/west"}}`,
		`{"managedBy":"mammoth/east"}`, `{"payload":{"managedBy":["mammoth/east"]}}`,
	} {
		if isOurs("east", []byte(entry)) {
			t.Errorf("%q counts as the zone's own", entry)
		}
	}
}

// Only what carries the zone's mark is ever taken for its own.
func FuzzIsOurs(f *testing.F) {
	f.Add([]byte(`{"payload":{"managedBy":"mammoth/east"}}`))
	f.Add([]byte(`{"payload":{"managedBy":"x"},"payload":{}}`))
	f.Fuzz(func(t *testing.T, entry []byte) {
		if isOurs("east", entry) && !json.Valid(entry) {
			t.Fatalf("%q counts as the zone's own", entry)
		}
	})
}
