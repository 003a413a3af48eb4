"""What the demo responder tells at length. Own words, without a model."""

from typing import Final

JOKES: Final = (
    "Why did the call drop its coffee? It heard there was a hang-up.",
    "A packet walks into a bar. Nobody saw it leave, so they ordered another one.",
    "I would tell you a joke about echo, echo, but you would hear it twice.",
    "My favourite music is hold music. It is the only kind that ever gets an answer.",
)

SHORT_STORY: Final = (
    "A lamp at the harbour once asked the moon why it never went out. I do go out, said the moon, but you are "
    "asleep by then. After that the lamp stayed lit until morning, and the two of them have kept each other company "
    "ever since."
)

LONG_STORY: Final = (
    "Once upon a time there was a lighthouse keeper called Ada, who lived on a small island at the edge of the sea. "
    "Every evening she climbed two hundred steps and lit the lamp. "
    "Every morning she climbed the same steps and put it out again. "
    "She had done so for thirty years, and she knew every step by its sound. "
    "One autumn night a thick fog came in from the west. "
    "It was so thick that even the strong light of the lamp was swallowed before it reached the water. "
    "Far out, a little ship with a red sail had lost its way. "
    "The captain could see nothing, neither the rocks nor the stars. "
    "Ada heard the bell of the ship, very faint, and she understood that light alone would not help tonight. "
    "So she did something that she had not done since she was a girl. "
    "She opened all the windows of the tower and began to sing. "
    "She sang the old songs of the harbour, one after the other, as loud as she could. "
    "The captain heard the voice, and he turned his ship towards it, slowly and with care. "
    "Whenever the voice was on his left he steered left, and whenever it was on his right he steered right. "
    "After a long hour the red sail came out of the fog, close to the pier and far from the rocks. "
    "The whole crew climbed up to the tower, wet and tired, and Ada made tea for all of them. "
    "In the morning the fog was gone, and the sea lay flat and blue as if nothing had ever happened. "
    "The captain asked what he owed her for the night. "
    "You owe me one song, said Ada, and you must sing it whenever you sail past my island. "
    "And so he did, every spring and every autumn, for as long as he sailed the sea. "
    "And on quiet evenings the people of the harbour still hear the two of them, one from the tower and one from the "
    "water. That is the end of the story."
)
