package zone

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
)

const (
	// keySpread is how long a new key is sent to nodes before it signs. A node that is silent for longer is lost, or registers anew.
	keySpread = time.Minute
	// LeastKeyRotation is longer than a token to start a container is valid, so that no such token outlives its key.
	LeastKeyRotation = time.Hour
)

// keys sign the tokens by which containers are started and nodes are watched.
type keys struct {
	*turn
	config   *config
	damage   *damage
	nodes    *nodes
	sessions *sessions
	// record has the keys as they are stored and sent to nodes, all has them as they sign; the newest comes first.
	record *storev1.Zone
	all    []token.Key
}

func (ks *keys) messages() []*trackerv1.TokenKey { return ks.record.GetKeys() }

func (ks *keys) sign(claims *corev1.TokenClaims) *corev1.ContainerToken {
	signed, err := token.Sign(ks.signing(), claims)
	if err != nil {
		ks.Fault("sign a container token", "error", err)
	}
	return signed
}

// load reads the keys, and makes one if there is none.
func (ks *keys) load(stored Records) error {
	err := loadRecords(stored, kindZone, func(record *storev1.Zone) error {
		proto.Merge(ks.record, record)
		return nil
	})
	if err != nil {
		return err
	}
	ks.read()
	if len(ks.all) == 0 {
		ks.create(1)
	}
	return nil
}

// rotate replaces the key that signs container tokens when it is old. The one before it stays valid for what it signed; a
// master whose token to watch a node was signed by an older one registers anew.
func (ks *keys) rotate() {
	if ks.damage.isFull() || ks.now.Before(ks.record.GetKeyMadeAt().AsTime().Add(ks.config.KeyRotation)) {
		return
	}
	before := ks.record.GetKeys()[0]
	key := ks.create(before.GetId()+1, before)
	for _, n := range ks.nodes.sorted() {
		ks.sessions.send(n, &trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Keys_{
			Keys: &trackerv1.NodeCommand_Keys{Keys: ks.record.GetKeys()},
		}})
	}
	ks.Emit(&apiv1.Event{Kind: "zone", To: "KEY_ROTATED", Message: fmt.Sprintf("key %d signs container tokens from %s on", key.ID, ks.now.Add(keySpread).UTC().Format(time.RFC3339))})
}

// create makes a key, and keeps the given ones valid.
func (ks *keys) create(number int32, valid ...*trackerv1.TokenKey) token.Key {
	key := token.Key{ID: number, Secret: ks.secrets.bytes()}
	ks.record.Keys = append([]*trackerv1.TokenKey{{Id: key.ID, Secret: key.Secret}}, valid...)
	ks.record.KeyMadeAt = timestamppb.New(ks.now)
	ks.Save(kindZone, "zone", ks.record)
	ks.read()
	return key
}

func (ks *keys) read() {
	ks.all = nil
	for _, key := range ks.record.GetKeys() {
		ks.all = append(ks.all, token.Key{ID: key.GetId(), Secret: key.GetSecret()})
	}
}

// signing is the key that signs: the newest that every node has.
func (ks *keys) signing() token.Key {
	if len(ks.all) > 1 && ks.now.Before(ks.record.GetKeyMadeAt().AsTime().Add(keySpread)) {
		return ks.all[1]
	}
	return ks.all[0]
}
