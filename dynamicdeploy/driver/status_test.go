package driver

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/sentence"
	dynamicdeployv1 "github.com/mammoth-os/mammoth/proto/mammoth/dynamicdeploy/v1"
)

func TestAnOutlookSaysHowOftenAVersionMayFailAndForHowLong(t *testing.T) {
	at := timestamppb.New(time.Unix(1_700_000_000, 0))
	rollout := func(failures int32, reverts bool, failsAt *timestamppb.Timestamp) *dynamicdeployv1.RoleRollout {
		return &dynamicdeployv1.RoleRollout{
			State: dynamicdeployv1.Rollout_PROGRESSING, Failures: failures, MaxFailures: 5, FailsAt: failsAt, Reverts: reverts,
		}
	}
	for want, r := range map[string]*dynamicdeployv1.RoleRollout{
		"": {State: dynamicdeployv1.Rollout_DONE},
		"the rollout of version 2 fails after 1 failure":                                                                     {MaxFailures: 1},
		"version 2 is reverted after 5 failures, or without progress at T":                                                   rollout(0, true, at),
		"the rollout of version 2 fails after 5 failures":                                                                    rollout(0, false, nil),
		"version 2 failed 2 times; it is reverted after 5 failures, or without progress at T":                                rollout(2, true, at),
		"version 2 failed once; it is reverted after 5 failures, or without progress at T":                                   rollout(1, true, at),
		"version 2 failed 2 times; its rollout fails after 5 failures":                                                       rollout(2, false, nil),
		"version 2 failed 5 times, which is too often; it is reverted at T unless a node turns out to be to blame":           rollout(5, true, at),
		"version 2 failed 5 times, which is too often; its rollout fails at T unless a node turns out to be to blame":        rollout(5, false, at),
		"version 2 failed more than 5 times, which is too often; it is reverted at T unless a node turns out to be to blame": rollout(6, true, at),
		"version 2 failed more than once, which is too often; it is reverted at T unless a node turns out to be to blame":    {MaxFailures: 1, Failures: 2, Reverts: true, FailsAt: at},
	} {
		app := rollouts{version: 2}
		app.add(roleRollout{RoleRollout: r})
		o, when := app.outlook(), ""
		if o.GetAt() != nil {
			when = "at T"
		}
		if got := sentence.Outlook(o.GetText(), when, o.GetUnless()); got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
}

func TestTheReasonOfARoleOfSeveralIsCut(t *testing.T) {
	app := rollouts{version: 2, several: true}
	for range 64 {
		app.add(roleRollout{RoleRollout: &dynamicdeployv1.RoleRollout{Role: "front", State: dynamicdeployv1.Rollout_FAILED, Reason: strings.Repeat("é", 8<<10)}})
	}
	whole := app.whole()
	if reason := whole.GetRoles()[0].GetReason(); len(reason) > 400 || !strings.HasSuffix(reason, "é…") || !utf8.ValidString(reason) {
		t.Errorf("the reason of a role has %d bytes: %q", len(reason), reason)
	}
	if size := proto.Size(whole); size > 32<<10 || len(app.failure()) > 2<<10 || len(whole.GetReason()) > 2<<10 {
		t.Errorf("the rollout has %d bytes, its reason %d, its failure %d", size, len(whole.GetReason()), len(app.failure()))
	}
}
