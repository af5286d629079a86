# ruff: noqa: E501, RUF001
"""Words of many languages, for texts that tokenizers have merges for."""

from __future__ import annotations

WORDS: dict[str, str] = {
    "english": "the quick brown fox it's they'll we've I'm you're don't she'd HTTPServer internationalization "
    "counterintuitive and of to in a is that for was on are with as his be at one have this O'Neill rock'n'roll",
    "french": "être déjà où français garçon l'été aujourd'hui œuvre naïve Noël ça coûte élève qu'il c'est château",
    "german": "über größer Straße Donaudampfschifffahrtsgesellschaft Äpfel Öl Übung weiß ẞ müßig Rechtsschutz ich",
    "polish": "źdźbło gżegżółka łódź ćma wąż świętość Kraków Łódź żółć być się nie jest który",
    "turkish": "İstanbul ılık ışık değil çağ şöyle Iğdır İ ı güneş öğretmen bir bu için",
    "vietnamese": "Việt Nam người được những không tiếng đường một các có và của là trong nước ấy",
    "russian": "привет мир который человек Россия ещё объявление съёмка что это как ВСЕГО Москва быть",
    "ukrainian": "їжак ґанок п'ять об'єкт Україна свято щастя людина що не Київ",
    "greek": "καλημέρα κόσμε ΕΛΛΑΔΑ Ὀδυσσεύς ἄνθρωπος σοφίας τους ϊ ΰ ώρα ςτο φιλοσοφία και το",
    "arabic": "السلام عليكم العربية كِتَاب مُحَمَّد ١٢٣ لا إله ﷺ قال من في على الذي كان",
    "persian": "می‌خواهم کتاب‌ها ایران پژوهش چگونه گفت این است از به که",
    "hebrew": "שלום עולם עברית בְּרֵאשִׁית ירושלים תל־אביב הספר של את לא",
    "hindi": "नमस्ते दुनिया हिन्दी क्षत्रिय विद्यार्थी १२३ भारत में है और का की श्री",
    "bengali": "বাংলা ভাষা নমস্কার বিশ্ব ক্ষমা আমি এবং করে",
    "tamil": "தமிழ் வணக்கம் உலகம் ஸ்ரீ மொழி நான்",
    "thai": "สวัสดี ชาวโลก ภาษาไทย น้ำ ประเทศ ที่ ของ และ เป็น ๑๒๓",
    "lao": "ສະບາຍດີ ຊາວໂລກ ພາສາລາວ",
    "burmese": "မင်္ဂလာပါ ကမ္ဘာ မြန်မာ",
    "tibetan": "བཀྲ་ཤིས་བདེ་ལེགས བོད་ཡིག",
    "khmer": "សួស្តី ពិភពលោក ភាសាខ្មែរ",
    "chinese": "你好 世界 中文 人工智能 我们 的 是 在 了 不 有 和 人 这 中华人民共和国 機器學習 臺灣 。 ， 、 「 」",
    "japanese": "こんにちは 世界 日本語 カタカナ がぎぐげご パピプ 東京都 です ます ー 々 〆 ﾊﾝｶｸ 、 。",
    "korean": "안녕하세요 세계 한국어 대한민국 값 없다 읽다 입니다 그리고 서울",
    "georgian": "გამარჯობა მსოფლიო საქართველო ᲡᲐᲥᲐᲠᲗᲕᲔᲚᲝ თბილისი",
    "armenian": "Բարեւ աշխարհ ՀԱՅԱՍՏԱՆ հայերեն և ﬓ Երևան",
    "cherokee": "ᏣᎳᎩ ꭰꭱꭲ Ꭰꭰ ᎣᏏᏲ",
    "deseret": "𐐔𐐯𐑅𐐨𐑉𐐯𐐻 𐐀𐐁 𐐨𐐩 𐐔𐐔'𐑅",
    "astral": "𝐇𝐞𝐥𝐥𝐨 𝔘𝔫𝔦 𝟏𝟐𝟑 𝒶𝒷 𐎠𐎡 𒀀𒀁 𓀀𓀁 𞤀𞤢 𐌰𐌱 𑀓𑀔 𠮷野家 𪚥 🄰 𝕏's",
    "ethiopic": "ሰላም ልዑል አማርኛ ፩፪፫",
    "mongolian": "ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ монгол",
    "esperanto": "ĉiuj homoj ŝajnas ĝi ŭ ĥoro ankaŭ estas",
    "titlecase": "ǅungla ǈubav ǋegoš ᾈδης ᾘ xǅ'ſ'SW ǅ's Ǆ ǆ aǅB",
}
"""Words by language, divided by spaces."""

ENDS: dict[str, str] = {
    "chinese": "。",
    "japanese": "。",
    "hindi": "।",
    "arabic": "؟",
    "armenian": "։",
}
"""What ends a sentence, where it is not a full stop."""
