package zone

import (
	"github.com/mammoth-os/mammoth/internal/token"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// rotateKeys makes a new key. Tokens that the one before it signed stay good, so that no start under way fails.
func (z *Core) rotateKeys() error {
	newest := z.record.GetKeys()[0]
	z.record.Keys = []*trackerv1.TokenKey{{Id: newest.GetId() + 1, Secret: z.secrets.bytes()}, newest}
	z.readKeys()
	z.save(kindZone, "zone", z.record)
	for _, n := range z.sortedNodes() {
		z.command(n, &trackerv1.NodeCommand{Command: &trackerv1.NodeCommand_Keys_{
			Keys: &trackerv1.NodeCommand_Keys{Keys: z.record.GetKeys()},
		}})
	}
	return nil
}

func (z *Core) readKeys() {
	z.keys = nil
	for _, key := range z.record.GetKeys() {
		z.keys = append(z.keys, token.Key{ID: key.GetId(), Secret: key.GetSecret()})
	}
}
