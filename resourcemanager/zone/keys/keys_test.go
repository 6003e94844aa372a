package keys_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/token"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/keys"
)

// turn is a turn of a zone. Its secrets are numbered.
type turn struct {
	now     time.Time
	secrets int
	stored  *storev1.Zone
	events  []string
}

func (t *turn) Now() time.Time { return t.now }

func (t *turn) NewSecret() []byte {
	t.secrets++
	return fmt.Appendf(nil, "secret %d", t.secrets)
}

func (t *turn) Save(_ store.Kind, _ string, record proto.Message) {
	t.stored = proto.CloneOf(record.(*storev1.Zone))
}
func (t *turn) Emit(event *apiv1.Event) { t.events = append(t.events, event.GetTo()) }
func (t *turn) Fault(string, ...any)    {}

// load makes the keys of a zone whose ResourceManager has just started.
func load(now *turn) *keys.Keys {
	ks := keys.New(now, &storev1.Zone{}, 24*time.Hour)
	ks.Load(now.stored)
	return ks
}

// numbers are those of the keys that nodes are sent.
func numbers(ks *keys.Keys) (numbers []int32) {
	for _, key := range ks.Messages() {
		numbers = append(numbers, key.GetId())
	}
	return numbers
}

func TestANewKeySignsOnceEveryNodeHasIt(t *testing.T) {
	now := &turn{now: time.Unix(1_700_000_000, 0)}
	ks := load(now)
	steps := []struct {
		pass    time.Duration
		rotates bool
		signs   int32
		sent    []int32
	}{
		{0, false, 1, []int32{1}},
		{24*time.Hour - time.Second, false, 1, []int32{1}},
		{time.Second, true, 1, []int32{2, 1}},
		{time.Minute - time.Second, false, 1, []int32{2, 1}},
		{time.Second, false, 2, []int32{2, 1}},
		{24 * time.Hour, true, 2, []int32{3, 2}},
		{time.Minute, false, 3, []int32{3, 2}},
	}
	for i, step := range steps {
		now.now = now.now.Add(step.pass)
		if ks.Rotate() != step.rotates {
			t.Errorf("step %d: rotates: %v, want %v", i, !step.rotates, step.rotates)
		}
		if sent := numbers(ks); !slices.Equal(sent, step.sent) {
			t.Errorf("step %d: nodes are sent the keys %v, want %v", i, sent, step.sent)
		}
		// A ResourceManager that starts in between signs with the same key.
		for _, signer := range []*keys.Keys{ks, load(now)} {
			if id := signer.Sign(&corev1.TokenClaims{}).GetKeyId(); id != step.signs {
				t.Errorf("step %d: key %d signs, want %d", i, id, step.signs)
			}
		}
	}
	if want := []string{"KEY_ROTATED", "KEY_ROTATED"}; !slices.Equal(now.events, want) {
		t.Errorf("the events are %v, want %v", now.events, want)
	}
}

func TestNodesTakeWhatTheKeysSigned(t *testing.T) {
	now := &turn{now: time.Unix(1_700_000_000, 0)}
	ks := load(now)
	signed := ks.Sign(&corev1.TokenClaims{NodeId: "n1"})
	verify := func() error {
		var have []token.Key
		for _, key := range ks.Messages() {
			have = append(have, token.Key{ID: key.GetId(), Secret: key.GetSecret()})
		}
		_, err := token.Verify(have, signed)
		return err
	}
	for rotations, valid := range []bool{true, true, false} {
		if err := verify(); (err == nil) != valid {
			t.Errorf("after %d rotations a node is told %v; want it to take the token: %v", rotations, err, valid)
		}
		now.now = now.now.Add(24 * time.Hour)
		ks.Rotate()
	}
}
