package zone

import (
	"crypto/sha256"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/id"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// external reports whether the app's master is a program outside of the zone.
func (a *app) external() bool { return a.record.GetSpec().GetKind() == apiv1.AppSpec_EXTERNAL }

// notForExternal refuses what is not done to an app whose master is a program outside of the zone.
func (a *app) notForExternal(why string) error {
	return fmt.Errorf("the application master of %s is a program outside of the zone; %s: %w", a.record.GetName(), why, errdefs.ErrFailedPrecondition)
}

// withoutRoles reports whether the app's master decides what its containers run, and how many there are.
func withoutRoles(a *app) bool { return !specs.HasRoles(a.record.GetSpec()) }

// begin begins an attempt whose master runs outside of the zone. One that runs is replaced.
func (at *attempts) begin(a *app) *apiv1.StartMasterResponse {
	if a.attemptState().Live() {
		at.masters.endStream(a, ErrSuperseded)
		at.finish(a, "another application master was started")
	}
	at.asks.withdraw(a)
	at.archive(a)
	attempt := id.Attempt{App: a.id, N: a.record.GetAttempt().GetNumber() + 1}
	token := attempt.String() + "." + at.secrets.text()
	hash := sha256.Sum256([]byte(token))
	a.record.Attempt = &storev1.Attempt{Number: attempt.N, TokenHash: hash[:], LaunchedAt: timestamppb.New(at.now)}
	at.heard(a)
	message := fmt.Sprintf("attempt %d of %s is started outside of the zone", attempt.N, a.record.GetName())
	at.move(a, lifecycle.AttemptSubmitted, message)
	at.move(a, lifecycle.AttemptGranted, message)
	return &apiv1.StartMasterResponse{AppId: a.id.String(), Attempt: attempt.N, Token: token, ResourceManager: at.config.Advertised()}
}

// outsideMaster is where the master of an app is that has not registered.
func (a *app) outsideMaster() string {
	if a.attemptState() == lifecycle.AttemptLaunched {
		return fmt.Sprintf("its application master (attempt %d) was started outside of the zone, and has not registered yet", a.record.GetAttempt().GetNumber())
	}
	return "its application master is a program outside of the zone, and does not run"
}
