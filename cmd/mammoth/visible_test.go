package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func TestWhatATerminalObeysIsEscaped(t *testing.T) {
	for text, want := range map[string]string{
		"plain, with ümläuts, 日本 and \t tabs":    "plain, with ümläuts, 日本 and \t tabs",
		"\x1b]0;title\a\x1b[2J":                  `\x1b]0;title\x07\x1b[2J`,
		"one\nweb-2: running\r":                  `one\nweb-2: running\r`,
		"c1 \u009b31m, del \x7f, nul \x00":       `c1 \x9b31m, del \x7f, nul \x00`,
		"right to left \u202egpj.exe \u2066":     `right to left \u202egpj.exe \u2066`,
		"line \u2028 and paragraph \u2029":       `line \u2028 and paragraph \u2029`,
		"no UTF-8: \xff\xc3(":                    `no UTF-8: \xff\xc3(`,
		"the sign for what was replaced: \ufffd": "the sign for what was replaced: \ufffd",
	} {
		got := visible(text)
		if got != want || visible(got) != got {
			t.Errorf("%q: %s, want %s; again %s", text, got, want, visible(got))
		}
	}
}

func TestEveryTextOfAMessageIsMadeVisible(t *testing.T) {
	dirty := func(esc string) *apiv1.App {
		return &apiv1.App{
			Name: "web" + esc,
			Spec: &apiv1.AppSpec{Roles: []*apiv1.RoleSpec{{Command: []string{"run", esc}, Env: map[string]string{"K" + esc: esc, "A": "b"}}}},
			Instances: []*apiv1.Instance{
				{Reason: "failed" + esc, Ports: []*corev1.PortMapping{{Name: esc, HostPort: 1}}},
			},
		}
	}
	got := dirty("\x1b[2J\n")
	visibleMessage(got)
	if want := dirty(`\x1b[2J\n`); !proto.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
}

func TestJSONEscapesWhatATerminalObeys(t *testing.T) {
	const reason = "\x1b[2J \u009b31m \u202e \x7f \" \\ \n"
	raw, err := encodeJSON(&apiv1.Instance{Reason: reason})
	if err != nil || bytes.IndexFunc(raw, hidden) >= 0 {
		t.Fatalf("%q, %v", raw, err)
	}
	var back struct{ Reason string }
	if err := json.Unmarshal(raw, &back); err != nil || back.Reason != reason {
		t.Errorf("read back %q, %v", back.Reason, err)
	}
}

func TestLogLinesAreEscapedForPeopleOnly(t *testing.T) {
	chunk := &corev1.LogChunk{Instance: "web-1", Lines: []*corev1.LogChunk_Line{{Text: "\x1b[31mred"}}}
	for form, want := range map[logForm]string{
		{escaped: true, prefix: true}: "web-1 | \\x1b[31mred\n",
		{raw: true}:                   "\x1b[31mred\n",
		{}:                            "\x1b[31mred\n",
	} {
		var out bytes.Buffer
		c := &logCommands{client{printer: &printer{out: &out}}}
		if err := c.logLines(chunk, form); err != nil || out.String() != want {
			t.Errorf("%+v: %q, %v", form, out.String(), err)
		}
	}
}
