package network

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/internal/id"
)

func nobody() (map[int]bool, error) { return nil, nil }

func container(seq int) id.Container {
	return id.Container{Epoch: 1, App: id.App{ClusterStart: 1, Seq: 1}, Seq: int64(seq)}
}

func TestParseRange(t *testing.T) {
	for text, want := range map[string]Range{"20000-29999": {20000, 29999}, " 80 ": {80, 80}, "1-65535": {1, 65535}} {
		if got, err := ParseRange(text); err != nil || got != want {
			t.Errorf("ParseRange(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0-9", "9-8", "a-b", "1-70000", "-5", "5-", "+1-2"} {
		if got, err := ParseRange(text); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("ParseRange(%q) = %v, %v; want an invalid argument", text, got, err)
		}
	}
}

func TestSplitIsDisjointAndInside(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.IntRange(1, 60000).Draw(t, "first")
		whole := Range{First: first, Last: rapid.IntRange(first, 65535).Draw(t, "last")}
		n := rapid.IntRange(1, whole.Len()).Draw(t, "nodes")
		parts, err := whole.Split(n)
		if err != nil {
			t.Fatal(err)
		}
		previous := whole.First - 1
		for _, part := range parts {
			if part.First <= previous || part.Last > whole.Last || part.Len() != parts[0].Len() {
				t.Fatalf("%v of %v after port %d", part, whole, previous)
			}
			previous = part.Last
		}
	})
}

// No port is ever leased twice, leased while in use, or offered while leased.
func TestLeasesNeverCollide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ports := Range{First: 20000, Last: 20000 + rapid.IntRange(0, 40).Draw(t, "size")}
		foreign := map[int]bool{}
		for _, offset := range rapid.SliceOf(rapid.IntRange(0, 40)).Draw(t, "foreign") {
			foreign[20000+offset] = true
		}
		leases := NewLeases(ports, func() (map[int]bool, error) { return foreign, nil })
		holders := map[int]id.Container{}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				got, err := leases.Lease(container(i), rapid.IntRange(1, 3).Draw(t, "count"))
				if err != nil && !errors.Is(err, errdefs.ErrResourceExhausted) {
					t.Fatal(err)
				}
				for _, port := range got {
					if foreign[port] || !holders[port].IsZero() || !ports.Contains(port) {
						t.Fatalf("port %d leased; foreign %v, holder %v", port, foreign[port], holders[port])
					}
					holders[port] = container(i)
				}
			case 1:
				gone := container(rapid.IntRange(0, i).Draw(t, "gone"))
				leases.Release(gone)
				for port, holder := range holders {
					if holder == gone {
						delete(holders, port)
					}
				}
			case 2:
				offer, settle, err := leases.Offer()
				if err != nil {
					continue
				}
				for port := offer.First; port <= offer.Last; port++ {
					if foreign[port] || !holders[port].IsZero() || !ports.Contains(port) {
						t.Fatalf("offer %v has port %d; foreign %v, holder %v", offer, port, foreign[port], holders[port])
					}
				}
				settle()
			}
		}
	})
}

func TestLeaseAvoidsAnOfferThatIsNotSettled(t *testing.T) {
	leases := NewLeases(Range{20000, 20000}, nobody)
	_, settle, err := leases.Offer()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := leases.Lease(container(1), 1); !errors.Is(err, errdefs.ErrResourceExhausted) {
		t.Fatalf("leased %v, %v while the port was offered", got, err)
	}
	settle()
	if _, err := leases.Lease(container(1), 1); err != nil {
		t.Fatal(err)
	}
}
