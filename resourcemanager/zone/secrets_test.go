package zone

import (
	"bytes"
	"testing"
)

// A turn that is repeated with its seed makes the same secrets; no two of one seed, and none of two seeds, are equal.
func TestSecretsComeOfTheSeed(t *testing.T) {
	one, again, other := secrets{seed: Seed{1}}, secrets{seed: Seed{1}}, secrets{seed: Seed{2}}
	seen := map[string]bool{}
	for range 1000 {
		secret := one.text()
		if secret != again.text() {
			t.Fatalf("the same seed makes %s and another", secret)
		}
		for _, made := range []string{secret, other.text()} {
			if len(made) != 32 || seen[made] {
				t.Fatalf("%s is no new secret", made)
			}
			seen[made] = true
		}
	}
	if key := one.bytes(); len(key) != 32 || bytes.Equal(key, one.bytes()) {
		t.Errorf("two keys are %x", key)
	}
}
