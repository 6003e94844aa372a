package resourcemanager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/spec/spectest"
	"github.com/mammoth-os/mammoth/internal/wire"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

func TestConfigsAreRefusedInSentences(t *testing.T) {
	fine := func() Config {
		return Config{
			Dir: "somewhere", Images: imageShelf{},
			Registry: board,
		}
	}
	good := fine()
	if err := good.Validate(); err != nil || good.NodeTimeout != 10*time.Second || good.Listen != "127.0.0.1:7070" || good.EventRetention != 10_000 || good.KeyRotation != 24*time.Hour {
		t.Errorf("a config that says little: %v, %+v", err, good)
	}
	for _, test := range []struct {
		change func(*Config)
		says   string
	}{
		{func(c *Config) { c.Dir = "" }, "needs a directory"},
		{func(c *Config) { c.Zone = "My Zone" }, `"My Zone" cannot be the name of a zone`},
		{func(c *Config) { c.Images = nil }, "needs an image store"},
		{func(c *Config) { c.Registry = nil }, "needs a registry"},
		{func(c *Config) { c.NodeTimeout = time.Second }, "at least twice the report interval"},
		{func(c *Config) { c.EventRetention = -1 }, "must be 1 to 1000000"},
		{func(c *Config) { c.KeyRotation = time.Minute }, "a key must sign for an hour at least, not 1m0s"},
		{func(c *Config) { c.Listen = "7070" }, "is not HOST:PORT"},
		{func(c *Config) { c.Listen = ":7070" }, "without TLS"},
		{func(c *Config) { c.Listen = "192.0.2.1:7070" }, "without TLS"},
		{func(c *Config) { c.Advertise = "0.0.0.0:7070" }, "nobody can connect to 0.0.0.0:7070"},
		{func(c *Config) { c.Advertise = "[::]:7070" }, "nobody can connect to [::]:7070"},
		{func(c *Config) { c.Advertise = "zone.test" }, "is not HOST:PORT"},
		{func(c *Config) { c.Listen, c.AllowInsecure, c.Advertise = "0.0.0.0:7070", true, "127.0.0.1:7070" }, "nobody on another machine reaches 127.0.0.1:7070"},
	} {
		config := fine()
		test.change(&config)
		if err := config.Validate(); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("got %v, want a sentence with %q", err, test.says)
		}
	}
	insecure := fine()
	insecure.Listen, insecure.AllowInsecure = "0.0.0.0:7070", true
	if err := insecure.Validate(); err != nil {
		t.Errorf("an address that was allowed: %v", err)
	}
}

// A node whose addresses lead others nowhere is not taken.
func TestTheTablesSpeakTheProtocol(t *testing.T) {
	for number, name := range apiv1.App_State_name {
		if got := lifecycle.AppState(number).String(); got != name {
			t.Errorf("app state %d is %s in the table and %s in the protocol", number, got, name)
		}
	}
	for number, name := range apiv1.Master_State_name {
		if got := lifecycle.AttemptState(number).String(); got != name {
			t.Errorf("attempt state %d is %s in the table and %s in the protocol", number, got, name)
		}
	}
	for number, name := range corev1.ContainerStatus_State_name {
		if got := lifecycle.ContainerState(number).String(); got != name {
			t.Errorf("container state %d is %s in the table and %s in the protocol", number, got, name)
		}
	}
	for number, name := range apiv1.NodeState_name {
		if got := lifecycle.NodeState(number).String(); got != name {
			t.Errorf("node state %d is %s in the table and %s in the protocol", number, got, name)
		}
	}
}

func TestAMailboxKeepsOrderAndTellsItsEndLast(t *testing.T) {
	box := newMailbox[int]()
	for i := range 3 {
		box.put(i)
	}
	end := errors.New("the end")
	box.close(end)
	if left := box.put(9); left != -1 {
		t.Errorf("a closed mailbox took a value: %d wait", left)
	}
	items, err := box.Next(context.Background())
	if err != nil || len(items) != 3 || items[0] != 0 || items[2] != 2 {
		t.Errorf("got %v, %v", items, err)
	}
	for range 2 {
		if _, err := box.Next(context.Background()); !errors.Is(err, end) {
			t.Errorf("then %v", err)
		}
	}
}

func TestConnectionsAreSplitByWhatTheySayFirst(t *testing.T) {
	for _, test := range []struct {
		pieces         []string
		http2, trusted bool
	}{
		{[]string{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}, true, false},
		{[]string{"PRI ", "* HTTP", "/2.0\r\n"}, true, true},
		{[]string{"GET / HTTP/1.1\r\n\r\n"}, false, true},
		{[]string{"P", "OST /v1/apps HTTP/1.1\r\n"}, false, false},
		{[]string{"PRI * HTTP/1"}, false, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			to := newFaces(nil, func(peer.User) bool { return test.trusted })
			go sort(theirs, to)
			go func() {
				for _, piece := range test.pieces {
					_, _ = io.WriteString(ours, piece)
				}
				_ = ours.Close()
			}()
			want := to.http
			switch {
			case test.http2 && test.trusted:
				want = to.trusted
			case test.http2:
				want = to.grpc
			}
			connection, err := want.Accept()
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(connection)
			if err != nil || string(text) != strings.Join(test.pieces, "") {
				t.Errorf("%q arrived as %q, %v", test.pieces, text, err)
			}
		})
	}
}

func TestASilentConnectionIsHungUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go sort(theirs, newFaces(nil, func(peer.User) bool { return false }))
		started := time.Now()
		if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read: %v", err)
		}
		if waited := time.Since(started); waited != credentials.BeginWithin {
			t.Errorf("hung up after %s", waited)
		}
	})
}

func TestAZoneHasTheNamesThatEverybodyTakes(t *testing.T) {
	for name, sentence := range spectest.Names() {
		config := Config{Dir: "unused", Zone: name, Images: imageShelf{}, Registry: board}
		if err := config.Validate(); err == nil || wire.Sentence(err) != fmt.Sprintf(sentence, "a zone") {
			t.Errorf("a zone named %q: %v", name, err)
		}
	}
}
