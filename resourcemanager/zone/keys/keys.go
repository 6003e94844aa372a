// Package keys keeps the keys that sign the tokens by which containers are started and nodes are watched. Nodes check tokens by the keys
// that they are sent.
package keys

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/token"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// KindZone is the kind of the record of the zone.
const KindZone store.Kind = "zone"

const (
	// spread is the time between a new key being sent to the nodes and its first signature. A node that is silent for longer is lost, or registers anew.
	spread = time.Minute
	// LeastRotation is longer than a token to start a container is valid, so that no such token outlives its key.
	LeastRotation = time.Hour
)

// Turn is the present turn of the zone. None of its methods fails.
type Turn interface {
	Now() time.Time
	// NewSecret is a secret that nobody else is given.
	NewSecret() []byte
	// Save has a record stored with the turn.
	Save(kind store.Kind, key string, record proto.Message)
	// Emit adds an event to the turn.
	Emit(event *apiv1.Event)
	// Fault has a fault of the program logged, with pairs of a key and a value.
	Fault(text string, about ...any)
}

// Keys are the keys of a zone.
type Keys struct {
	turn Turn
	// rotation is how long one key signs.
	rotation time.Duration
	// record is that of the zone, of which the keys are a part.
	record *storev1.Zone
	// all are the keys as they sign; the newest comes first.
	all []token.Key
}

// New makes the keys of a zone. record is that of the zone, which has more than the keys. One key signs for as long as
// rotation.
func New(turn Turn, record *storev1.Zone, rotation time.Duration) *Keys {
	return &Keys{turn: turn, record: record, rotation: rotation}
}

// Load takes in the stored record of the zone, and makes a key if there is none.
func (ks *Keys) Load(stored *storev1.Zone) {
	proto.Merge(ks.record, stored)
	ks.read()
	if len(ks.all) == 0 {
		ks.create(1)
	}
}

// Messages are the keys as nodes are sent them; the newest comes first.
func (ks *Keys) Messages() []*trackerv1.TokenKey { return ks.record.GetKeys() }

// Sign signs a token.
func (ks *Keys) Sign(claims *corev1.TokenClaims) *corev1.ContainerToken {
	signed, err := token.Sign(ks.signing(), claims)
	if err != nil {
		ks.turn.Fault("sign a container token", "error", err)
	}
	return signed
}

// Rotate replaces the key that signs if it is old, and reports whether it did: nodes are to be sent the keys then. The one before it stays
// valid for what it signed; a master whose token to watch a node was signed by an older one registers anew.
func (ks *Keys) Rotate() bool {
	if ks.turn.Now().Before(ks.record.GetKeyMadeAt().AsTime().Add(ks.rotation)) {
		return false
	}
	before := ks.record.GetKeys()[0]
	key := ks.create(before.GetId()+1, before)
	ks.turn.Emit(&apiv1.Event{Kind: "zone", To: "KEY_ROTATED", Message: fmt.Sprintf("key %d signs container tokens from %s on", key.ID, ks.turn.Now().Add(spread).UTC().Format(time.RFC3339))})
	return true
}

// create makes a key, and keeps the given ones valid.
func (ks *Keys) create(number int32, valid ...*trackerv1.TokenKey) token.Key {
	key := token.Key{ID: number, Secret: ks.turn.NewSecret()}
	ks.record.Keys = append([]*trackerv1.TokenKey{{Id: key.ID, Secret: key.Secret}}, valid...)
	ks.record.KeyMadeAt = timestamppb.New(ks.turn.Now())
	ks.turn.Save(KindZone, "zone", ks.record)
	ks.read()
	return key
}

func (ks *Keys) read() {
	ks.all = nil
	for _, key := range ks.record.GetKeys() {
		ks.all = append(ks.all, token.Key{ID: key.GetId(), Secret: key.GetSecret()})
	}
}

// signing is the key that signs: the newest that every node has.
func (ks *Keys) signing() token.Key {
	if len(ks.all) > 1 && ks.turn.Now().Before(ks.record.GetKeyMadeAt().AsTime().Add(spread)) {
		return ks.all[1]
	}
	return ks.all[0]
}
