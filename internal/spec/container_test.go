package spec_test

import (
	"testing"

	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/spec/spectest"
)

func TestAContainerIsHeldToTheSameAsItsRole(t *testing.T) {
	for _, c := range spectest.Cases() {
		if c.OfApps {
			continue
		}
		if err := spec.CheckContainer(c.Container()); err == nil || err.Error() != c.Sentence {
			t.Errorf("%s: %v, want %q", c.Name, err, c.Sentence)
		}
	}
}
