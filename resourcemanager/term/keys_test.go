package term

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/mammoth-os/mammoth/internal/token"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// trusts reports whether a node takes a token, by the keys that it was given.
func (n *fakeNode) trusts(signed *corev1.ContainerToken) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	var keys []token.Key
	for _, key := range n.keys {
		keys = append(keys, token.Key{ID: key.GetId(), Secret: key.GetSecret()})
	}
	_, err := token.Verify(keys, signed)
	return err == nil
}

// A key signs for a day. Nodes have the next one before it signs, and take what the one before it signed until it is replaced too.
func TestTheKeyThatSignsTokensIsRotated(t *testing.T) {
	daysInZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(4))
		m := n.launchMaster()
		grant := func(instance string, key int32) *masterv1.Allocation {
			t.Helper()
			got := allocated(m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{ask1(instance)}}))
			if len(got) == 0 {
				t.Fatalf("nothing is granted for %s", instance)
			}
			last := got[len(got)-1] // a stream that was opened anew begins with the earlier ones
			if id := last.GetToken().GetKeyId(); id != key || !n.trusts(last.GetToken()) {
				t.Fatalf("key %d signed the token for %s, and the node trusts it: %v; want key %d", id, instance, n.trusts(last.GetToken()), key)
			}
			return last
		}
		first := grant("web-1", 1).GetWatchToken()
		z.restart()
		n.register()
		m.connect()
		grant("web-2", 1)

		z.pass(24 * time.Hour)
		grant("web-3", 1)
		away := z.addNode("node-2")
		z.pass(time.Minute)
		second := grant("web-4", 2).GetWatchToken()
		for _, node := range []*fakeNode{n, away} {
			if len(node.keys) != 2 || !node.trusts(first) || !node.trusts(second) {
				t.Errorf("%s has %d keys; trusts what the first signed: %v, the second: %v", node.name, len(node.keys), node.trusts(first), node.trusts(second))
			}
		}

		z.pass(24 * time.Hour)
		synctest.Wait()
		if len(n.keys) != 2 || n.trusts(first) || !n.trusts(second) {
			t.Errorf("after the second rotation a node has %d keys; trusts what the first signed: %v, the second: %v", len(n.keys), n.trusts(first), n.trusts(second))
		}
		rotated := 0
		for _, event := range z.events("") {
			if event.GetTo() == "KEY_ROTATED" {
				rotated++
			}
		}
		if rotated != 2 {
			t.Errorf("the events tell of %d rotations", rotated)
		}
	})
}
