package zone

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

func TestANodeMustBeReachable(t *testing.T) {
	for _, test := range []struct {
		listen, address, manager string
		refused                  bool
	}{
		{"0.0.0.0:7070", "10.0.0.2", "10.0.0.2:7421", false},
		{"0.0.0.0:7070", "127.0.0.1", "10.0.0.2:7421", true},
		{"0.0.0.0:7070", "10.0.0.2", "127.0.0.1:7421", true},
		{"10.0.0.1:7070", "::1", "[::1]:7421", true},
		{"0.0.0.0:7070", "0.0.0.0", "10.0.0.2:7421", true},
		{"127.0.0.1:7070", "127.0.0.1", "[::]:7421", true},
		{"127.0.0.1:7070", "127.0.0.1", "127.0.0.1:7421", false},
		{"localhost:7070", "127.0.0.1", "127.0.0.1:7421", false},
		{"0.0.0.0:7070", "node.test", "node.test:7421", false},
		{"0.0.0.0:7070", "", "", false},
	} {
		settings := Settings{Listen: test.listen}
		err := settings.reachable(&trackerv1.RegisterRequest{NodeId: "node-1", Address: test.address, ContainerManager: test.manager})
		if errdefs.IsInvalidArgument(err) != test.refused || err != nil && !strings.Contains(err.Error(), "--address") {
			t.Errorf("%q and %q in a zone at %s: %v", test.address, test.manager, test.listen, err)
		}
	}
}

// Where it listens on every address, each node says by which one it is reached.
func TestWhatIsAdvertised(t *testing.T) {
	for _, test := range []struct{ advertise, address, want string }{
		{"", "[::]:7070", ""},
		{"", "0.0.0.0:7070", ""},
		{"", "127.0.0.1:7070", "127.0.0.1:7070"},
		{"", "10.0.0.1:7070", "10.0.0.1:7070"},
		{"zone.test:7070", "[::]:7070", "zone.test:7070"},
	} {
		settings := Settings{Advertise: test.advertise, Address: test.address}
		if got := settings.Advertised(); got != test.want {
			t.Errorf("of %q, listening at %s, %q is told, want %q", test.advertise, test.address, got, test.want)
		}
	}
}
