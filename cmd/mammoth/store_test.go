package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// storeCommand runs a command and gives its exit code with what it printed.
func storeCommand(t *testing.T, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	code := run(t.Context(), append([]string{"store"}, args...), streams{in: strings.NewReader(""), out: &out, err: &out}, func(string) string { return "" })
	return code, out.String()
}

// A damaged store is told of file by file, repaired only on the word that what is lost is lost, and whole after that. One that is
// gone altogether is missed by whoever has noted that it was there.
func TestADamagedStoreIsCheckedAndRepaired(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, managerFolder, store.FolderName)
	s, err := store.OpenFile(folder, store.Options{Now: time.Now(), EventRetention: 10})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := s.Commit(t.Context(), store.Batch{Puts: []store.Put{{Kind: "node", Key: fmt.Sprint("n", i), Value: []byte("a node")}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeNotes(filepath.Join(dir, upFile), zoneNotes{Zone: "local", Store: s.Identity().ID.String()}); err != nil {
		t.Fatal(err)
	}
	if code, out := storeCommand(t, "check", "--dir", dir); code == 0 || !strings.Contains(out, "another process has the store") {
		t.Errorf("a check of an open store: %d, %s", code, out)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{dir, filepath.Join(dir, managerFolder), folder} {
		if code, out := storeCommand(t, "check", "--dir", where); code != 0 || out != folder+": whole, 3 records\n" {
			t.Errorf("a check of %s: %d, %s", where, code, out)
		}
	}
	if err := os.Remove(filepath.Join(folder, "mark")); err != nil {
		t.Fatal(err)
	}
	if code, out := storeCommand(t, "check", "--dir", dir); code != 1 || !strings.Contains(out, "mark: it is gone") || !strings.Contains(out, "damaged, nothing is lost") {
		t.Errorf("a check without the mark: %d, %s", code, out)
	}
	if code, out := storeCommand(t, "repair", "--dir", dir); code != 0 || !strings.Contains(out, "repaired") {
		t.Errorf("a repair that loses nothing: %d, %s", code, out)
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if code, out := storeCommand(t, "check", "--dir", folder, "-o", "json"); code != 1 || !strings.Contains(out, "all files of the store are gone") {
		t.Errorf("a check of nothing: %d, %s", code, out)
	}
	if code, out := storeCommand(t, "repair", "--dir", dir); code != 1 || !strings.Contains(out, "--accept-loss") {
		t.Errorf("a repair that loses something: %d, %s", code, out)
	}
	if code, out := storeCommand(t, "repair", "--dir", dir, "--accept-loss"); code != 0 || !strings.Contains(out, "mammoth store accept") {
		t.Errorf("a repair that may lose something: %d, %s", code, out)
	}
	if code, out := storeCommand(t, "check", "--dir", dir); code != 0 || !strings.Contains(out, "whole") {
		t.Errorf("a check after the repair: %d, %s", code, out)
	}
}
