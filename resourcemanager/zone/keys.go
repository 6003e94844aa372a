package zone

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/token"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

const (
	// keySpread is how long nodes have to be given a new key before it signs. One that is silent for longer is lost, or
	// registers anew.
	keySpread = time.Minute
	// LeastKeyRotation is longer than a token to start a container is valid, so that such a token outlives no key.
	LeastKeyRotation = time.Hour
)

// dueKeys replaces the key that signs container tokens when it is old. The one before it stays valid for what it signed; a
// master whose token to watch a node was signed by an older one registers anew.
func (z *Core) dueKeys() {
	if z.damage.isFull() || z.now.Before(z.record.GetKeyMadeAt().AsTime().Add(z.config.KeyRotation)) {
		return
	}
	before := z.record.GetKeys()[0]
	key := z.newKey(before.GetId()+1, before)
	for _, n := range z.nodes.sorted() {
		z.sessions.send(n, &trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Keys_{
			Keys: &trackerv1.NodeCommand_Keys{Keys: z.record.GetKeys()},
		}})
	}
	z.emit(&apiv1.Event{Kind: "zone", To: "KEY_ROTATED", Message: fmt.Sprintf("key %d signs container tokens from %s on", key.ID, z.now.Add(keySpread).UTC().Format(time.RFC3339))})
}

// newKey makes a key beside those that stay valid.
func (z *Core) newKey(number int32, valid ...*trackerv1.TokenKey) token.Key {
	key := token.Key{ID: number, Secret: z.secrets.bytes()}
	z.record.Keys = append([]*trackerv1.TokenKey{{Id: key.ID, Secret: key.Secret}}, valid...)
	z.record.KeyMadeAt = timestamppb.New(z.now)
	z.save(kindZone, "zone", z.record)
	z.readKeys()
	return key
}

func (z *Core) readKeys() {
	z.keys = nil
	for _, key := range z.record.GetKeys() {
		z.keys = append(z.keys, token.Key{ID: key.GetId(), Secret: key.GetSecret()})
	}
}

// signingKey is the newest key that every node has.
func (z *Core) signingKey() token.Key {
	if len(z.keys) > 1 && z.now.Before(z.record.GetKeyMadeAt().AsTime().Add(keySpread)) {
		return z.keys[1]
	}
	return z.keys[0]
}
