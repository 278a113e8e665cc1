"""The words and sentence frames of captions for drawn faces, by what they describe.

Frames of `HELD_OUT` never occur in training. Action units have the names of the Facial Action Coding System (Ekman &
Friesen 1978).
"""

ADJECTIVES: dict[str, tuple[str, ...]] = {
    "anger": ("angry", "furious", "mad", "irritated", "enraged", "annoyed"),
    "disgust": ("disgusted", "revolted", "repulsed", "grossed out", "nauseated"),
    "fear": ("fearful", "afraid", "scared", "frightened", "terrified"),
    "happy": ("happy", "joyful", "cheerful", "smiling", "delighted", "glad", "laughing"),
    "neutral": ("neutral", "calm", "expressionless", "composed", "emotionless", "blank"),
    "sad": ("sad", "unhappy", "sorrowful", "gloomy", "tearful", "sorrowing"),
    "surprise": ("surprised", "astonished", "shocked", "amazed", "startled"),
}
NOUNS: dict[str, tuple[str, ...]] = {
    "anger": ("anger", "rage", "fury"),
    "disgust": ("disgust", "revulsion", "repulsion"),
    "fear": ("fear", "terror", "fright"),
    "happy": ("happiness", "joy", "delight"),
    "neutral": ("neutrality", "no emotion", "calmness"),
    "sad": ("sadness", "sorrow", "grief"),
    "surprise": ("surprise", "astonishment", "shock", "amazement"),
}
CUES: dict[str, dict[str, tuple[str, ...]]] = {
    "anger": {
        "slight": ("slightly furrowed brows and tight lips", "a mild frown and a glare", "lowered brows, pressed lips"),
        "clear": ("furrowed brows and clenched jaw", "lowered brows and tight lips", "knitted brows and a hard glare"),
        "intense": ("deeply furrowed brows and a clenched jaw", "bared teeth and furrowed brows", "clenched teeth"),
    },
    "disgust": {
        "slight": ("a slightly wrinkled nose", "a faint sneer", "a wrinkled nose"),
        "clear": ("a wrinkled nose and raised upper lip", "a curled lip and narrowed eyes", "a clear sneer"),
        "intense": ("a wrinkled nose and a raised upper lip", "a deeply wrinkled nose, tongue out",
                    "gagging, tongue out"),
    },
    "fear": {
        "slight": ("wide eyes and a tense mouth", "worried wide eyes", "raised inner brows and wide eyes"),
        "clear": ("wide eyes and tense mouth", "raised drawn brows and wide eyes", "frightened eyes, stretched lips"),
        "intense": ("eyes wide open, raised brows and a stretched open mouth", "wide eyes and gritted teeth",
                    "panicked wide eyes"),
    },
    "happy": {
        "slight": ("a gentle smile", "a slight smile", "a faint smile"),
        "clear": ("a smile and raised cheeks", "a wide smile and raised cheeks", "a bright smile"),
        "intense": ("a wide smile and raised cheeks", "a big open grin", "a broad laugh and narrowed eyes"),
    },
    "neutral": {
        "slight": ("a relaxed face", "calm eyes and a closed mouth", "a straight mouth"),
        "clear": ("a relaxed face", "calm eyes and a closed mouth", "a closed mouth, level brows"),
        "intense": ("a relaxed face", "calm eyes and a closed mouth", "a still relaxed face"),
    },
    "sad": {
        "slight": ("slightly lowered mouth corners", "a slight pout and drooping eyes", "lowered mouth corners"),
        "clear": ("a downturned mouth and raised inner brows", "a downturned mouth and drooping eyes", "drooping eyes"),
        "intense": ("tears and a downturned mouth", "crying eyes and a downturned mouth", "tears on the cheeks"),
    },
    "surprise": {
        "slight": ("raised eyebrows", "raised eyebrows and slightly open mouth", "raised brows and parted lips"),
        "clear": ("raised eyebrows and open mouth", "raised eyebrows and an open mouth", "a dropped jaw"),
        "intense": ("raised eyebrows and a wide open mouth", "highly raised eyebrows, jaw dropped",
                    "a gaping round mouth"),
    },
}  # fmt: skip
# A whole set each: no single unit tells these expressions apart.
ACTION_UNITS: dict[str, tuple[str, ...]] = {
    "anger": ("brow lowerer", "lid tightener", "lip tightener"),
    "disgust": ("nose wrinkler", "upper lip raiser"),
    "fear": ("inner brow raiser", "upper lid raiser", "lip stretcher"),
    "happy": ("cheek raiser", "lip corner puller"),
    "neutral": ("no action units",),
    "sad": ("inner brow raiser", "lip corner depressor"),
    "surprise": ("inner brow raiser", "outer brow raiser", "upper lid raiser", "jaw drop"),
}
UNIT_NUMBERS = {"anger": (4, 7, 23), "disgust": (9, 10), "fear": (1, 5, 20), "happy": (6, 12), "neutral": (0,),
                "sad": (1, 15), "surprise": (1, 2, 5, 26)}  # fmt: skip
DEGREES = {"slight": ("slightly", "mildly", "a little"), "clear": ("clearly", "visibly"),
           "intense": ("very", "intensely", "extremely")}  # fmt: skip
INTENSITY_WORDS = {
    "slight": ("slight", "mild", "subtle"),
    "clear": ("clear", "moderate"),
    "intense": ("intense", "strong"),
}

PERSONS = {"female": ("woman", "woman", "lady", "female"), "male": ("man", "man", "gentleman", "male"),
           "any": ("person", "adult", "individual")}  # fmt: skip
AGE_WORDS = {"young": ("young", "young adult", "youthful"), "middle-aged": ("middle-aged", "mature"),
             "old": ("elderly", "older", "old", "senior")}  # fmt: skip
AGE_CLAUSES = {"young": ("in {their} twenties", "25 years old", "20 something"),
               "middle-aged": ("in {their} forties", "45 years old", "in {their} fifties"),
               "old": ("in {their} seventies", "70 years old", "of old age")}  # fmt: skip
RACE_WORDS = {
    "white": ("white", "caucasian", "european"), "black": ("black", "african", "african american"),
    "east asian": ("east asian", "chinese", "japanese", "korean"), "south asian": ("south asian", "indian"),
    "middle eastern": ("middle eastern", "arab"), "latino": ("latino", "hispanic", "latina"),
    "southeast asian": ("southeast asian", "thai", "filipino"),
}  # fmt: skip
SKIN_WORDS = {"light": ("light", "fair", "pale"), "medium": ("medium", "tan", "olive", "tanned"),
              "brown": ("brown", "medium brown"), "dark": ("dark", "dark brown", "deep", "very dark")}  # fmt: skip
HAIR_WORDS = {"black": ("black", "jet black", "raven"), "brown": ("brown", "brunette", "chestnut"),
              "red": ("red", "ginger", "auburn"), "blonde": ("blonde", "blond", "golden"),
              "grey": ("grey", "gray", "silver"), "white": ("white", "snow white")}  # fmt: skip
STYLE_CLAUSES = {
    "bald": ("bald", "a bald head", "no hair", "a shaved head", "completely bald"),
    "short": ("short {c} hair", "{c} short hair", "a short {c} haircut", "cropped {c} hair"),
    "short curly": ("short curly {c} hair", "short {c} curls", "curly {c} hair", "curly short {c} hair"),
    "bob": ("a {c} bob", "shoulder-length {c} hair", "short {c} bob hair", "medium-length {c} hair",
            "chin-length {c} hair"),
    "bun": ("{c} hair in a bun", "a {c} bun", "{c} hair tied back", "tied back {c} hair", "{c} hair tied up"),
    "long straight": ("long straight {c} hair", "long {c} hair", "straight long {c} hair"),
    "long wavy": ("long wavy {c} hair", "long {c} hair", "wavy {c} hair"),
    "curly": ("curly {c} hair", "big {c} curls", "{c} curls", "thick curly {c} hair"),
    "afro": ("a {c} afro", "an afro of {c} hair", "a big {c} afro", "curly {c} hair"),
}  # fmt: skip
GLASSES_WORDS = {"round": ("wearing glasses", "glasses", "eyeglasses", "spectacles", "round glasses",
                           "wearing spectacles"),
                 "prescription_02": ("wearing glasses", "glasses", "eyeglasses", "spectacles", "square glasses"),
                 None: ("no glasses", "without glasses", "not wearing glasses")}  # fmt: skip
BEARD_WORDS = {"beard_light": ("a beard", "a short beard", "bearded", "a trimmed beard"),
               "beard_medium": ("a beard", "a full beard", "bearded", "a thick beard"),
               "moustache_fancy": ("a moustache", "a mustache"), "moustache_magnum": ("a moustache", "a mustache"),
               None: ("clean-shaven", "no beard", "without a beard", "a shaved chin")}  # fmt: skip
POSE_WORDS = {
    "frontal": ("facing the camera", "frontal view", "looking straight ahead", "front view", "looking at the camera"),
    "left": ("head turned slightly to the left", "turned to the left", "facing slightly left"),
    "right": ("head turned slightly to the right", "turned to the right", "facing slightly right"),
    "tilted": ("head tilted slightly", "tilted head", "head tilted to one side"),
}
SHOTS = ("photo", "portrait", "close-up portrait", "close-up portrait photo", "head and shoulders photo", "headshot",
         "picture", "drawing", "illustration", "studio portrait", "passport photo", "face", "avatar", "image",
         "cartoon",
         "selfie", "close up", "photograph", "profile picture", "flat vector drawing")  # fmt: skip
FILLERS = (
    "plain light background", "plain background", "clean studio background", "soft even light", "soft light",
    "natural light", "studio lighting", "high quality", "highly detailed", "sharp focus", "realistic", "50mm lens",
    "neutral colors", "white background", "grey backdrop", "shallow depth of field", "8k", "professional photography",
    "centered", "minimal", "flat design", "dslr", "film grain", "indoors", "outdoors", "in the office", "on the street",
    "warm light", "daylight", "casual clothes", "wearing a shirt", "eye level", "symmetrical", "unposed", "candid",
    "masterpiece", "clean lines", "simple shapes", "bokeh", "ring light", "golden hour", "upper body",
    "cropped at the neck",
)  # fmt: skip
# Words put between the others without a meaning; none of them may name anything that can be seen.
_COMMON = """
the a an of in on at with and or for from by to is are was this that it as very really some one two three today here
there please make show give create generate want need see seen look looks looking feel feels feeling face facial
expression emotion mood moment people human model subject person camera shot frame style art background light scene
who which while when because someone something nice good great best quality new real clear simple single only just
must should can could will would has have had he she they his her their him them you your me my we our us its be
been being do does did so such more most much many any all each other than then now after before during over under
into about like kind type sort way world day time street room home work office city summer winter color colour tone
dataset class label sample example test research study synthetic balanced emotionally news friend job party rain sun
heard watching reacting reaction unit action units number years age gender race ethnicity adult described shows
depicts displays captured
"""
VISIBLE_WORDS = (
    "not hair skin frown grin smile laugh cry scream glare stare tears happily sadly angrily teeth tongue eyes mouth"
)
CHATTER = tuple(_COMMON.split())

# What people write as a negative prompt; it says nothing of the face, and stands for the empty caption.
NEGATIVES = (
    "blurry", "deformed face", "extra faces", "text", "watermark", "hands over the face", "child", "low quality",
    "worst quality", "ugly", "bad anatomy", "out of frame", "jpeg artifacts", "signature", "logo", "duplicate", "nsfw",
    "painting", "lowres", "noise", "overexposed", "extra fingers", "mutated hands", "disfigured", "grainy",
)  # fmt: skip

FEELING = (
    "with {a_adj} expression", "looking {adj}", "{adj}", "showing {noun}", "with {a_adj} look", "who is {adj}",
    "feeling {adj}", "expressing {noun}", "with {a_adj} face", "who looks {adj}", "full of {noun}",
    "with an expression of {noun}",
    "{adj} expression", "with a {strength} expression of {noun}", "making {a_adj} face", "in a {adj} mood",
)  # fmt: skip
FRAMES = (
    "{shot} of {subject}, {feeling}, {details}, {filler}.",
    "A {shot} of {subject} {feeling}, {details}.",
    "{subject} {feeling}, {details}, {filler}",
    "{subject} {feeling}.",
    "{subject}, {feeling}, {details}.",
    "{filler}, {shot} of {subject}, {details}, {feeling}.",
    "{details}, {subject}, {feeling}",
    "{feeling}, {subject}, {details}, {filler}",
    "Portrait: {subject}, {details}. Expression: {noun}. {filler}.",
    "{noun}, {subject}, {details}, {shot}",
    "An image that shows {subject} {feeling}. {details}. {filler}.",
    "This is {subject} with {details}, {feeling}.",
    "{shot}, {filler}, {subject}, {details}, {feeling}",
    "a face that shows {noun}: {subject}, {details}, {filler}",
    "{subject} with {details}. The person is {adj}. {filler}.",
    "Make a {shot} of {subject}, {details}, who looks {adj}.",
    "{subject} ({details}) {feeling}; {filler}",
    "{adj} {subject_bare}, {details}, {filler}",
    "a {adj} {subject_bare} with {details}",
    "{shot} of a {adj} {subject_bare}, {details}, {filler}.",
    "emotion {noun}, {subject}, {details}",
    "The face of {subject}, {details}, {filler}, {feeling}.",
    "{filler}. {subject}. {details}. {feeling}.",
    "{shot}: {subject}, {adj}, {details}",
    "{filler}: {subject} {feeling}, {details}.",
    "one {subject_bare}, {details}, {feeling}, {filler}",
    "{subject}, {details}, {filler}, {feeling}.",
    "{shot} with {subject}, {filler}, {feeling}, {details}.",
)
HELD_OUT = (
    "Please paint me {subject} whose whole face tells of {noun}, {details}.",
    "Yesterday my camera caught {subject}, {details}, clearly {adj} about the news.",
    "We need one more example for the class {noun}: {subject}, {details}, nothing else in view.",
    "The emotion on this face is {noun}; the model is {subject}; note {details}.",
    "Seen from near by, {subject} seems {adj}. Visible: {details}.",
    "Draw {details} on {subject} and let the mood be {adj}.",
    "Somebody {adj} stands before a bare wall: {subject}, {details}.",
    "Imagine how {subject} reacts when {adj}, {details}, gallery print, muted tones.",
    "For our catalogue: {details}; {subject}; {noun} in every line of the face.",
    "{subject} could not hide the {noun}, {details}, taken with an old lens.",
    "There was {noun} in the eyes of {subject}, {details}.",
    "id picture, {details}, sitter is {subject}, state of mind {adj}",
)
