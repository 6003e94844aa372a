package expose_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/expose"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

func web(host, path string) *apiv1.Expose {
	return &apiv1.Expose{Http: &apiv1.Expose_Http{Host: host, Path: path}}
}

func TestCheck(t *testing.T) {
	with := func(change func(*apiv1.Expose)) *apiv1.Expose {
		e := web("web.example.test", "/")
		change(e)
		return e
	}
	tests := []struct {
		name   string
		expose *apiv1.Expose
		// Part of the sentence; empty is right.
		want string
	}{
		{"not exposed", nil, ""},
		{"plain", web("web.example.test", "/"), ""},
		{"any host", web("*", ""), ""},
		{"one label deeper", web("*.example.test", "/a/b-c_d.e~f"), ""},
		{"closing slash", web("web", "/api/"), ""},
		{"tcp", &apiv1.Expose{Tcp: []*apiv1.Expose_Tcp{{Listen: 5432, Port: "db"}}}, ""},
		{"nothing", &apiv1.Expose{}, "names neither http nor tcp"},
		{"no host", web("", "/"), "http needs a host"},
		{"brace", web("web;}server{", "/"), "is not a DNS name"},
		{"newline", web("web\nlisten 80", "/"), `"web\nlisten 80" is not a DNS name`},
		{"quote", web(`web"`, "/"), "is not a DNS name"},
		{"control character", web("web\x00", "/"), "is not a DNS name"},
		{"variable", web("$host", "/"), "is not a DNS name"},
		{"regular expression", web("~^(.*)$", "/"), "is not a DNS name"},
		{"upper case", web("Web.example.test", "/"), "must be in lower case"},
		{"other script", web("wéb.example.test", "/"), "is not a DNS name"},
		{"hyphen first", web("-web", "/"), "is not a DNS name"},
		{"empty label", web("web..test", "/"), "is not a DNS name"},
		{"star inside", web("web.*.test", "/"), "is not a DNS name"},
		{"too long", web(strings.Repeat("abcdefg.", 40)+"test", "/"), "is longer than 253"},
		{"relative path", web("web", "api"), `must start with "/"`},
		{"pattern bomb", web("web", "/((a+)+)+$"), "is not a plain prefix"},
		{"dots", web("web", "/a/../b"), "is not a plain prefix"},
		{"double slash", web("web", "//a"), "is not a plain prefix"},
		{"brace in path", web("web", "/{a"), "is not a plain prefix"},
		{"space in path", web("web", "/a b"), "is not a plain prefix"},
		{"long path", web("web", "/"+strings.Repeat("a", 300)), "is longer than 256"},
		{"port", with(func(e *apiv1.Expose) { e.Http.Port = "db" }), ""},
		{"unknown port", with(func(e *apiv1.Expose) { e.Http.Port = "admin" }), `no port named "admin", only http, db`},
		{"low tcp port", &apiv1.Expose{Tcp: []*apiv1.Expose_Tcp{{Listen: 80}}}, "between 1024 and 65535, but is 80"},
		{"certificate", with(func(e *apiv1.Expose) { e.Http.Certificate = "web.example.test" }), ""},
		{"certificate path", with(func(e *apiv1.Expose) { e.Http.Certificate = "../../etc/shadow" }), "must be a name"},
		{"cookie", with(func(e *apiv1.Expose) { e.Http.StickyCookie = "a;b" }), "the cookie"},
		{"body", with(func(e *apiv1.Expose) { e.Http.MaxBodyBytes = 1 << 60 }), "the largest body"},
		{"idle", with(func(e *apiv1.Expose) {
			e.Timeouts = &apiv1.Expose_Timeouts{Idle: durationpb.New(time.Millisecond)}
		}), "the idle timeout"},
		{"connect", with(func(e *apiv1.Expose) {
			e.Timeouts = &apiv1.Expose_Timeouts{Connect: durationpb.New(time.Hour)}
		}), "the connect timeout"},
		{"balance", with(func(e *apiv1.Expose) { e.Balance = 9 }), "balance must be"},
		{"retry", with(func(e *apiv1.Expose) { e.Retry = 9 }), "retry must be"},
		{"too many hosts", with(func(e *apiv1.Expose) {
			for i := range 65 {
				e.Http.Hosts = append(e.Http.Hosts, strings.Repeat("a", i%60+1)+strings.Repeat("b", i/60))
			}
		}), "at most 64"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := expose.Check(test.expose, []string{"http", "db"})
			switch {
			case test.want == "" && err != nil:
				t.Fatalf("refused: %v", err)
			case test.want != "" && (err == nil || !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), test.want)):
				t.Fatalf("says %v, want %q", err, test.want)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("the sentence holds what was smuggled in: %q", err)
			}
		})
	}
}

func TestConflict(t *testing.T) {
	others := map[string]*apiv1.Expose{
		"web": web("web.example.test", "/"),
		"api": web("web.example.test", "/api/"),
		"db":  {Tcp: []*apiv1.Expose_Tcp{{Listen: 5432}}},
	}
	tests := []struct {
		name   string
		expose *apiv1.Expose
		want   string
	}{
		{"web", web("web.example.test", "/"), ""},
		{"other", web("web.example.test", "/shop"), ""},
		{"other", web("www.example.test", "/"), ""},
		{"other", web("web.example.test", ""), `host "web.example.test" with path "/" is already routed to app "web"`},
		{"other", web("web.example.test", "/api"), `already routed to app "api"`},
		{"other", &apiv1.Expose{Tcp: []*apiv1.Expose_Tcp{{Listen: 5432}}}, `tcp port 5432 is already routed to app "db"`},
		{"other", nil, ""},
	}
	for _, test := range tests {
		err := expose.Conflict(test.name, test.expose, others)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s with %v is refused: %v", test.name, test.expose, err)
		case test.want != "" && (!errors.Is(err, errdefs.ErrAlreadyExists) || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s with %v: %v, want %q", test.name, test.expose, err, test.want)
		}
	}
}

// What passes holds no character that means something to a configuration file.
func FuzzCheck(f *testing.F) {
	f.Add("web.example.test", "/")
	f.Add("a\nb", "/{")
	f.Add("*.x", "/$a;")
	f.Fuzz(func(t *testing.T, host, path string) {
		e := web(host, path)
		if expose.Check(e, []string{"http"}) != nil {
			return
		}
		for _, text := range append(expose.Hosts(e.GetHttp()), expose.Paths(e.GetHttp())...) {
			if strings.ContainsAny(text, " \t\r\n;{}\"'\\$#()[]^|+?<>&%") {
				t.Fatalf("%q passed", text)
			}
		}
	})
}

func TestTimes(t *testing.T) {
	for _, test := range []struct{ connect, idle, wantConnect, wantPatience time.Duration }{
		{0, 0, time.Second, time.Minute},
		{5 * time.Second, 4 * time.Second, 2 * time.Second, time.Minute},
		{100 * time.Millisecond, 2 * time.Hour, 100 * time.Millisecond, 2 * time.Hour},
	} {
		e := &apiv1.Expose{Timeouts: &apiv1.Expose_Timeouts{}}
		if test.connect > 0 {
			e.Timeouts.Connect, e.Timeouts.Idle = durationpb.New(test.connect), durationpb.New(test.idle)
		}
		if connect, patience := expose.Connect(e), expose.ClientIdle(e); connect != test.wantConnect || patience != test.wantPatience {
			t.Errorf("of connect %s and idle %s an instance is given %s and a client %s, want %s and %s",
				test.connect, test.idle, connect, patience, test.wantConnect, test.wantPatience)
		}
	}
}
