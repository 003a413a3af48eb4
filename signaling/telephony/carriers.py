"""Every carrier we know. A new one is a file beside this one and a line here; docs/telephony/adding.md says how."""

from __future__ import annotations

from collections.abc import Mapping

from signaling.telephony.asterisk import Asterisk
from signaling.telephony.audiosocket import AudioSocket
from signaling.telephony.carrier import Carrier
from signaling.telephony.telnyx import Telnyx
from signaling.telephony.twilio import Twilio
from signaling.telephony.vonage import Vonage

_ALL: tuple[Carrier, ...] = (Twilio(), Telnyx(), Vonage(), Asterisk(), AudioSocket())
CARRIERS: Mapping[str, Carrier] = {carrier.name: carrier for carrier in _ALL}
