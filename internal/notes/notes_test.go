package notes

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type zone struct {
	Zone  string `json:"zone"`
	Nodes int    `json:"nodes,omitempty"`
}

var noted = zone{Zone: "berlin", Nodes: 3}

func TestWhatWasWrittenIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zone.json")
	var got zone
	if err := Read(path, &got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before the first start: %v", err)
	}
	for _, want := range []zone{noted, {Zone: "bonn"}, noted} {
		if err := Write(path, want); err != nil {
			t.Fatal(err)
		}
		got = zone{}
		if err := Read(path, &got); err != nil || got != want {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	names, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if len(names) != 2 {
		t.Errorf("left behind: %v", names)
	}
}

// Each single bit, in the file or in its copy, and each file that is cut short or missing: the value is read, and both files are
// right again once it is written.
func TestOneDamageLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zone.json")
	if err := Write(path, noted); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	readsWell := func(what string, at int) {
		t.Helper()
		var got zone
		if err := Read(path, &got); err != nil || got != noted {
			t.Errorf("%s %d: got %v, %v", what, at, got, err)
		}
		if err := Write(path, noted); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{path, Copy(path)} {
			now, err := os.ReadFile(file)
			if err := errors.Join(err, Unseal(now, &got)); err != nil || got != noted {
				t.Errorf("%s %d: %s is %q, %v", what, at, filepath.Base(file), now, err)
			}
		}
	}
	for _, file := range []string{path, Copy(path)} {
		for at := range whole {
			for bit := range 8 {
				flipped := append([]byte(nil), whole...)
				flipped[at] ^= 1 << bit
				overwrite(t, file, flipped)
				readsWell("a flipped bit in byte", at)
				overwrite(t, path, whole)
				overwrite(t, Copy(path), whole)
			}
			overwrite(t, file, whole[:at])
			readsWell("cut at", at)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		readsWell("missing", 0)
	}
}

// A letter of a value that changes leaves valid JSON: only the checksum tells.
func TestTwoDamagesAreFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zone.json")
	if err := Write(path, noted); err != nil {
		t.Fatal(err)
	}
	whole, _ := os.ReadFile(path)
	changed := strings.Replace(string(whole), "berlin", "merlin", 1)
	overwrite(t, path, []byte(changed))
	overwrite(t, Copy(path), []byte(changed))
	got := zone{Zone: "untouched"}
	if err := Read(path, &got); !errors.Is(err, ErrDamaged) || got.Zone != "untouched" {
		t.Errorf("got %v, %v", got, err)
	}
	// A copy that is missing does not make a damaged file look like one that never was, nor the other way round.
	for _, file := range []string{path, Copy(path)} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := Read(path, &got); !errors.Is(err, ErrDamaged) {
			t.Errorf("without %s: %v", filepath.Base(file), err)
		}
		overwrite(t, file, []byte(changed))
	}
}

func overwrite(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
