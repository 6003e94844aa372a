package resourcemanager

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mammoth-os/mammoth/internal/spec/spectest"
	"github.com/mammoth-os/mammoth/internal/wire"
)

func TestConfigsAreRefusedInSentences(t *testing.T) {
	fine := func() Config {
		return Config{
			Dir: "somewhere", Images: shelf{},
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

func TestAZoneHasTheNamesThatEverybodyTakes(t *testing.T) {
	for name, sentence := range spectest.Names() {
		config := Config{Dir: "unused", Zone: name, Images: shelf{}, Registry: board}
		if err := config.Validate(); err == nil || wire.Sentence(err) != fmt.Sprintf(sentence, "a zone") {
			t.Errorf("a zone named %q: %v", name, err)
		}
	}
}
